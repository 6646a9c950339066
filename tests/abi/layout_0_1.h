/* SPDX-License-Identifier: MIT */
/*
 * The public interface of release 0.1 in numbers, of 64-bit machines: size of each structure, offset and size of each
 * field, value of each word. Never to be changed once that is released: a line that does not hold any more is a program
 * that does not run any more. What comes later is added as a table of its own.
 */
/* clang-format off */
#define LAYOUT_SIZES \
	SIZE(uffdwp_image_id, 16), \
	SIZE(uffdwp_image_options, 32), \
	SIZE(uffdwp_image_info, 136), \
	SIZE(uffdwp_image_extent, 48), \
	SIZE(uffdwp_image_verified, 48), \
	SIZE(uffdwp_image_merge_options, 32), \
	SIZE(uffdwp_image_diff, 72), \
	SIZE(uffdwp_probe_system, 64), \
	SIZE(uffdwp_probe_memory, 224), \
	SIZE(uffdwp_probe_trial, 112), \
	SIZE(uffdwp_probe_rung, 184), \
	SIZE(uffdwp_probe_arming, 176), \
	SIZE(uffdwp_region_options, 96), \
	SIZE(uffdwp_region_info, 72), \
	SIZE(uffdwp_region_stats, 216), \
	SIZE(uffdwp_lost_range, 24), \
	SIZE(uffdwp_audit, 32), \
	SIZE(uffdwp_restore_options, 80), \
	SIZE(uffdwp_restore_progress, 96), \
	SIZE(uffdwp_options, 48), \
	SIZE(uffdwp_snapshot_options, 128), \
	SIZE(uffdwp_snapshot_progress, 168), \
	SIZE(uffdwp_track_options, 24), \
	SIZE(uffdwp_written, 24), \
	SIZE(uffdwp_collect, 112), \
	SIZE(uffdwp_track_info, 48), \
	SIZE(uffdwp_view_options, 40), \
	SIZE(uffdwp_view_info, 40), \
	SIZE(uffdwp_fork_options, 80), \
	SIZE(uffdwp_child_info, 56), \
	SIZE(uffdwp_mapping, 24), \
	SIZE(uffdwp_mapper, 32),

#define LAYOUT_FIELDS \
	FIELD(uffdwp_image_id, low, 0, 8), \
	FIELD(uffdwp_image_id, high, 8, 8), \
	FIELD(uffdwp_image_options, sz, 0, 8), \
	FIELD(uffdwp_image_options, flags, 8, 4), \
	FIELD(uffdwp_image_options, contexts, 12, 4), \
	FIELD(uffdwp_image_options, paths, 16, 8), \
	FIELD(uffdwp_image_options, path_count, 24, 8), \
	FIELD(uffdwp_image_info, sz, 0, 8), \
	FIELD(uffdwp_image_info, kind, 8, 4), \
	FIELD(uffdwp_image_info, links, 12, 4), \
	FIELD(uffdwp_image_info, compress, 16, 4), \
	FIELD(uffdwp_image_info, reserved, 20, 4), \
	FIELD(uffdwp_image_info, length_bytes, 24, 8), \
	FIELD(uffdwp_image_info, file_bytes, 32, 8), \
	FIELD(uffdwp_image_info, page_bytes, 40, 8), \
	FIELD(uffdwp_image_info, region_page_bytes, 48, 8), \
	FIELD(uffdwp_image_info, pages_raw, 56, 8), \
	FIELD(uffdwp_image_info, pages_zeros, 64, 8), \
	FIELD(uffdwp_image_info, pages_packed, 72, 8), \
	FIELD(uffdwp_image_info, id, 80, 16), \
	FIELD(uffdwp_image_info, parent, 96, 16), \
	FIELD(uffdwp_image_info, path, 112, 8), \
	FIELD(uffdwp_image_info, parent_name, 120, 8), \
	FIELD(uffdwp_image_info, allocated_bytes, 128, 8), \
	FIELD(uffdwp_image_extent, sz, 0, 8), \
	FIELD(uffdwp_image_extent, offset, 8, 8), \
	FIELD(uffdwp_image_extent, length, 16, 8), \
	FIELD(uffdwp_image_extent, kind, 24, 4), \
	FIELD(uffdwp_image_extent, link, 28, 4), \
	FIELD(uffdwp_image_extent, fd, 32, 4), \
	FIELD(uffdwp_image_extent, reserved, 36, 4), \
	FIELD(uffdwp_image_extent, file_offset, 40, 8), \
	FIELD(uffdwp_image_verified, sz, 0, 8), \
	FIELD(uffdwp_image_verified, links, 8, 4), \
	FIELD(uffdwp_image_verified, reserved, 12, 4), \
	FIELD(uffdwp_image_verified, pages, 16, 8), \
	FIELD(uffdwp_image_verified, bytes_read, 24, 8), \
	FIELD(uffdwp_image_verified, raw_id, 32, 16), \
	FIELD(uffdwp_image_merge_options, sz, 0, 8), \
	FIELD(uffdwp_image_merge_options, flags, 8, 4), \
	FIELD(uffdwp_image_merge_options, deltas, 12, 4), \
	FIELD(uffdwp_image_merge_options, compress, 16, 4), \
	FIELD(uffdwp_image_merge_options, threads, 20, 4), \
	FIELD(uffdwp_image_merge_options, mode, 24, 4), \
	FIELD(uffdwp_image_merge_options, reserved, 28, 4), \
	FIELD(uffdwp_image_diff, sz, 0, 8), \
	FIELD(uffdwp_image_diff, flags, 8, 4), \
	FIELD(uffdwp_image_diff, compress, 12, 4), \
	FIELD(uffdwp_image_diff, path, 16, 8), \
	FIELD(uffdwp_image_diff, callback, 24, 8), \
	FIELD(uffdwp_image_diff, user, 32, 8), \
	FIELD(uffdwp_image_diff, ranges, 40, 8), \
	FIELD(uffdwp_image_diff, bytes, 48, 8), \
	FIELD(uffdwp_image_diff, page_bytes, 56, 8), \
	FIELD(uffdwp_image_diff, mode, 64, 4), \
	FIELD(uffdwp_image_diff, reserved, 68, 4), \
	FIELD(uffdwp_probe_system, sz, 0, 8), \
	FIELD(uffdwp_probe_system, features, 8, 8), \
	FIELD(uffdwp_probe_system, huge_pages_free, 16, 8), \
	FIELD(uffdwp_probe_system, max_map_count, 24, 8), \
	FIELD(uffdwp_probe_system, access_chosen, 32, 4), \
	FIELD(uffdwp_probe_system, sysctl_unprivileged, 36, 4), \
	FIELD(uffdwp_probe_system, uring, 40, 4), \
	FIELD(uffdwp_probe_system, pagemap_scan, 44, 4), \
	FIELD(uffdwp_probe_system, pagemap_bit57, 48, 4), \
	FIELD(uffdwp_probe_system, scan_holes, 52, 4), \
	FIELD(uffdwp_probe_system, seccomp, 56, 4), \
	FIELD(uffdwp_probe_system, swap_on, 60, 4), \
	FIELD(uffdwp_probe_memory, sz, 0, 8), \
	FIELD(uffdwp_probe_memory, page_bytes, 8, 8), \
	FIELD(uffdwp_probe_memory, registered, 16, 4), \
	FIELD(uffdwp_probe_memory, mechanism, 20, 4), \
	FIELD(uffdwp_probe_memory, inline_works, 24, 4), \
	FIELD(uffdwp_probe_memory, fills, 28, 4), \
	FIELD(uffdwp_probe_memory, reason, 32, 192), \
	FIELD(uffdwp_probe_trial, sz, 0, 8), \
	FIELD(uffdwp_probe_trial, answer, 8, 4), \
	FIELD(uffdwp_probe_trial, reserved, 12, 4), \
	FIELD(uffdwp_probe_trial, reason, 16, 96), \
	FIELD(uffdwp_probe_rung, sz, 0, 8), \
	FIELD(uffdwp_probe_rung, works, 8, 4), \
	FIELD(uffdwp_probe_rung, thread_works, 12, 4), \
	FIELD(uffdwp_probe_rung, inline_works, 16, 4), \
	FIELD(uffdwp_probe_rung, error, 20, 4), \
	FIELD(uffdwp_probe_rung, reason, 24, 160), \
	FIELD(uffdwp_probe_arming, sz, 0, 8), \
	FIELD(uffdwp_probe_arming, works, 8, 4), \
	FIELD(uffdwp_probe_arming, error, 12, 4), \
	FIELD(uffdwp_probe_arming, reason, 16, 160), \
	FIELD(uffdwp_region_options, sz, 0, 8), \
	FIELD(uffdwp_region_options, flags, 8, 4), \
	FIELD(uffdwp_region_options, mechanism, 12, 4), \
	FIELD(uffdwp_region_options, delivery, 16, 4), \
	FIELD(uffdwp_region_options, numa, 20, 4), \
	FIELD(uffdwp_region_options, numa_nodes, 24, 8), \
	FIELD(uffdwp_region_options, capacity_bytes, 32, 8), \
	FIELD(uffdwp_region_options, huge_page_bytes, 40, 8), \
	FIELD(uffdwp_region_options, name, 48, 8), \
	FIELD(uffdwp_region_options, fd, 56, 4), \
	FIELD(uffdwp_region_options, reserved, 60, 4), \
	FIELD(uffdwp_region_options, fd_offset, 64, 8), \
	FIELD(uffdwp_region_options, on_loss, 72, 8), \
	FIELD(uffdwp_region_options, on_loss_user, 80, 8), \
	FIELD(uffdwp_region_options, address, 88, 8), \
	FIELD(uffdwp_region_info, sz, 0, 8), \
	FIELD(uffdwp_region_info, base, 8, 8), \
	FIELD(uffdwp_region_info, length_bytes, 16, 8), \
	FIELD(uffdwp_region_info, capacity_bytes, 24, 8), \
	FIELD(uffdwp_region_info, page_bytes, 32, 8), \
	FIELD(uffdwp_region_info, memory, 40, 4), \
	FIELD(uffdwp_region_info, mechanism, 44, 4), \
	FIELD(uffdwp_region_info, delivery, 48, 4), \
	FIELD(uffdwp_region_info, fd, 52, 4), \
	FIELD(uffdwp_region_info, dead, 56, 4), \
	FIELD(uffdwp_region_info, aliases, 60, 4), \
	FIELD(uffdwp_region_info, syscalls_wait, 64, 4), \
	FIELD(uffdwp_region_info, reserved, 68, 4), \
	FIELD(uffdwp_region_stats, sz, 0, 8), \
	FIELD(uffdwp_region_stats, faults, 8, 8), \
	FIELD(uffdwp_region_stats, faults_repeated, 16, 8), \
	FIELD(uffdwp_region_stats, pages_disarmed, 24, 8), \
	FIELD(uffdwp_region_stats, events_remove, 32, 8), \
	FIELD(uffdwp_region_stats, events_remap, 40, 8), \
	FIELD(uffdwp_region_stats, events_unmap, 48, 8), \
	FIELD(uffdwp_region_stats, pages_lost, 56, 8), \
	FIELD(uffdwp_region_stats, snapshots, 64, 8), \
	FIELD(uffdwp_region_stats, lost_by, 72, 128), \
	FIELD(uffdwp_region_stats, pages_rearmed, 200, 8), \
	FIELD(uffdwp_region_stats, pages_filled, 208, 8), \
	FIELD(uffdwp_lost_range, start, 0, 8), \
	FIELD(uffdwp_lost_range, end, 8, 8), \
	FIELD(uffdwp_lost_range, cause, 16, 4), \
	FIELD(uffdwp_lost_range, reserved, 20, 4), \
	FIELD(uffdwp_audit, sz, 0, 8), \
	FIELD(uffdwp_audit, pages_armed, 8, 8), \
	FIELD(uffdwp_audit, pages_lost, 16, 8), \
	FIELD(uffdwp_audit, pages_rearmed, 24, 8), \
	FIELD(uffdwp_restore_options, sz, 0, 8), \
	FIELD(uffdwp_restore_options, flags, 8, 4), \
	FIELD(uffdwp_restore_options, threads, 12, 4), \
	FIELD(uffdwp_restore_options, path, 16, 8), \
	FIELD(uffdwp_restore_options, paths, 24, 8), \
	FIELD(uffdwp_restore_options, path_count, 32, 8), \
	FIELD(uffdwp_restore_options, progress, 40, 8), \
	FIELD(uffdwp_restore_options, progress_user, 48, 8), \
	FIELD(uffdwp_restore_options, touches_max, 56, 8), \
	FIELD(uffdwp_restore_options, first, 64, 8), \
	FIELD(uffdwp_restore_options, first_count, 72, 8), \
	FIELD(uffdwp_restore_progress, sz, 0, 8), \
	FIELD(uffdwp_restore_progress, state, 8, 4), \
	FIELD(uffdwp_restore_progress, error, 12, 4), \
	FIELD(uffdwp_restore_progress, error_offset, 16, 8), \
	FIELD(uffdwp_restore_progress, length_bytes, 24, 8), \
	FIELD(uffdwp_restore_progress, pages_total, 32, 8), \
	FIELD(uffdwp_restore_progress, pages_done, 40, 8), \
	FIELD(uffdwp_restore_progress, pages_demand, 48, 8), \
	FIELD(uffdwp_restore_progress, pages_failed, 56, 8), \
	FIELD(uffdwp_restore_progress, bytes_read, 64, 8), \
	FIELD(uffdwp_restore_progress, begin_ns, 72, 8), \
	FIELD(uffdwp_restore_progress, elapsed_ns, 80, 8), \
	FIELD(uffdwp_restore_progress, direct, 88, 4), \
	FIELD(uffdwp_restore_progress, uring, 92, 4), \
	FIELD(uffdwp_options, sz, 0, 8), \
	FIELD(uffdwp_options, flags, 8, 4), \
	FIELD(uffdwp_options, handler_threads, 12, 4), \
	FIELD(uffdwp_options, handler_cpus, 16, 8), \
	FIELD(uffdwp_options, numa_nodes, 24, 8), \
	FIELD(uffdwp_options, control, 32, 4), \
	FIELD(uffdwp_options, reserved, 36, 4), \
	FIELD(uffdwp_options, control_path, 40, 8), \
	FIELD(uffdwp_snapshot_options, sz, 0, 8), \
	FIELD(uffdwp_snapshot_options, flags, 8, 4), \
	FIELD(uffdwp_snapshot_options, sink, 12, 4), \
	FIELD(uffdwp_snapshot_options, policy, 16, 4), \
	FIELD(uffdwp_snapshot_options, window_max, 20, 4), \
	FIELD(uffdwp_snapshot_options, length, 24, 8), \
	FIELD(uffdwp_snapshot_options, pool_bytes, 32, 8), \
	FIELD(uffdwp_snapshot_options, wait_ns, 40, 8), \
	FIELD(uffdwp_snapshot_options, path, 48, 8), \
	FIELD(uffdwp_snapshot_options, fd, 56, 4), \
	FIELD(uffdwp_snapshot_options, arming, 60, 4), \
	FIELD(uffdwp_snapshot_options, callback, 64, 8), \
	FIELD(uffdwp_snapshot_options, user, 72, 8), \
	FIELD(uffdwp_snapshot_options, cut_enter, 80, 8), \
	FIELD(uffdwp_snapshot_options, cut_leave, 88, 8), \
	FIELD(uffdwp_snapshot_options, cut_user, 96, 8), \
	FIELD(uffdwp_snapshot_options, parent, 104, 8), \
	FIELD(uffdwp_snapshot_options, compress, 112, 4), \
	FIELD(uffdwp_snapshot_options, mode, 116, 4), \
	FIELD(uffdwp_snapshot_options, rate_bytes, 120, 8), \
	FIELD(uffdwp_snapshot_progress, sz, 0, 8), \
	FIELD(uffdwp_snapshot_progress, state, 8, 4), \
	FIELD(uffdwp_snapshot_progress, error, 12, 4), \
	FIELD(uffdwp_snapshot_progress, length_bytes, 16, 8), \
	FIELD(uffdwp_snapshot_progress, pages_total, 24, 8), \
	FIELD(uffdwp_snapshot_progress, pages_fault, 32, 8), \
	FIELD(uffdwp_snapshot_progress, pages_prepare, 40, 8), \
	FIELD(uffdwp_snapshot_progress, pages_sweep, 48, 8), \
	FIELD(uffdwp_snapshot_progress, pages_hole, 56, 8), \
	FIELD(uffdwp_snapshot_progress, faults, 64, 8), \
	FIELD(uffdwp_snapshot_progress, waits, 72, 8), \
	FIELD(uffdwp_snapshot_progress, pool_peak_bytes, 80, 8), \
	FIELD(uffdwp_snapshot_progress, bytes_written, 88, 8), \
	FIELD(uffdwp_snapshot_progress, pause_ns, 96, 8), \
	FIELD(uffdwp_snapshot_progress, elapsed_ns, 104, 8), \
	FIELD(uffdwp_snapshot_progress, direct, 112, 4), \
	FIELD(uffdwp_snapshot_progress, uring, 116, 4), \
	FIELD(uffdwp_snapshot_progress, pages_pause, 120, 8), \
	FIELD(uffdwp_snapshot_progress, pages_rounds, 128, 8), \
	FIELD(uffdwp_snapshot_progress, rounds_ns, 136, 8), \
	FIELD(uffdwp_snapshot_progress, stalled_most_ns, 144, 8), \
	FIELD(uffdwp_snapshot_progress, braked_ns, 152, 8), \
	FIELD(uffdwp_snapshot_progress, rounds, 160, 4), \
	FIELD(uffdwp_snapshot_progress, arming, 164, 4), \
	FIELD(uffdwp_track_options, sz, 0, 8), \
	FIELD(uffdwp_track_options, flags, 8, 4), \
	FIELD(uffdwp_track_options, mechanism, 12, 4), \
	FIELD(uffdwp_track_options, delivery, 16, 4), \
	FIELD(uffdwp_track_options, reserved, 20, 4), \
	FIELD(uffdwp_written, start, 0, 8), \
	FIELD(uffdwp_written, end, 8, 8), \
	FIELD(uffdwp_written, flags, 16, 8), \
	FIELD(uffdwp_collect, sz, 0, 8), \
	FIELD(uffdwp_collect, flags, 8, 4), \
	FIELD(uffdwp_collect, reserved, 12, 4), \
	FIELD(uffdwp_collect, start, 16, 8), \
	FIELD(uffdwp_collect, length, 24, 8), \
	FIELD(uffdwp_collect, ranges, 32, 8), \
	FIELD(uffdwp_collect, capacity, 40, 8), \
	FIELD(uffdwp_collect, bitmap, 48, 8), \
	FIELD(uffdwp_collect, bitmap_bytes, 56, 8), \
	FIELD(uffdwp_collect, callback, 64, 8), \
	FIELD(uffdwp_collect, user, 72, 8), \
	FIELD(uffdwp_collect, count, 80, 8), \
	FIELD(uffdwp_collect, bytes, 88, 8), \
	FIELD(uffdwp_collect, next, 96, 8), \
	FIELD(uffdwp_collect, vanished_bytes, 104, 8), \
	FIELD(uffdwp_track_info, sz, 0, 8), \
	FIELD(uffdwp_track_info, mechanism, 8, 4), \
	FIELD(uffdwp_track_info, flags, 12, 4), \
	FIELD(uffdwp_track_info, ranges, 16, 8), \
	FIELD(uffdwp_track_info, bytes, 24, 8), \
	FIELD(uffdwp_track_info, collects, 32, 8), \
	FIELD(uffdwp_track_info, vanished_bytes, 40, 8), \
	FIELD(uffdwp_view_options, sz, 0, 8), \
	FIELD(uffdwp_view_options, flags, 8, 4), \
	FIELD(uffdwp_view_options, reserved, 12, 4), \
	FIELD(uffdwp_view_options, cut_enter, 16, 8), \
	FIELD(uffdwp_view_options, cut_leave, 24, 8), \
	FIELD(uffdwp_view_options, cut_user, 32, 8), \
	FIELD(uffdwp_view_info, sz, 0, 8), \
	FIELD(uffdwp_view_info, length_bytes, 8, 8), \
	FIELD(uffdwp_view_info, private_bytes, 16, 8), \
	FIELD(uffdwp_view_info, pause_ns, 24, 8), \
	FIELD(uffdwp_view_info, error, 32, 4), \
	FIELD(uffdwp_view_info, reserved, 36, 4), \
	FIELD(uffdwp_mapping, address, 0, 8), \
	FIELD(uffdwp_mapping, offset, 8, 8), \
	FIELD(uffdwp_mapping, length, 16, 8), \
	FIELD(uffdwp_mapper, sz, 0, 8), \
	FIELD(uffdwp_mapper, flags, 8, 4), \
	FIELD(uffdwp_mapper, uffd, 12, 4), \
	FIELD(uffdwp_mapper, pidfd, 16, 4), \
	FIELD(uffdwp_mapper, mapping_count, 20, 4), \
	FIELD(uffdwp_mapper, mappings, 24, 8), \
	FIELD(uffdwp_fork_options, sz, 0, 8), \
	FIELD(uffdwp_fork_options, flags, 8, 4), \
	FIELD(uffdwp_fork_options, arming, 12, 4), \
	FIELD(uffdwp_fork_options, policy, 16, 4), \
	FIELD(uffdwp_fork_options, region_count, 20, 4), \
	FIELD(uffdwp_fork_options, regions, 24, 8), \
	FIELD(uffdwp_fork_options, private_bytes, 32, 8), \
	FIELD(uffdwp_fork_options, wait_ns, 40, 8), \
	FIELD(uffdwp_fork_options, cut_enter, 48, 8), \
	FIELD(uffdwp_fork_options, cut_leave, 56, 8), \
	FIELD(uffdwp_fork_options, cut_user, 64, 8), \
	FIELD(uffdwp_fork_options, window_max, 72, 4), \
	FIELD(uffdwp_fork_options, reserved, 76, 4), \
	FIELD(uffdwp_child_info, sz, 0, 8), \
	FIELD(uffdwp_child_info, state, 8, 4), \
	FIELD(uffdwp_child_info, pid, 12, 4), \
	FIELD(uffdwp_child_info, private_bytes, 16, 8), \
	FIELD(uffdwp_child_info, pause_ns, 24, 8), \
	FIELD(uffdwp_child_info, fork_ns, 32, 8), \
	FIELD(uffdwp_child_info, call_ns, 40, 8), \
	FIELD(uffdwp_child_info, error, 48, 4), \
	FIELD(uffdwp_child_info, arming, 52, 4),

#define LAYOUT_WORDS \
	WORD(UFFDWP_IMAGE_KIND_RAW, 0), \
	WORD(UFFDWP_IMAGE_KIND_DELTA, 1), \
	WORD(UFFDWP_EXTENT_ZEROS, 0), \
	WORD(UFFDWP_EXTENT_DATA, 1), \
	WORD(UFFDWP_EXTENT_PACKED, 2), \
	WORD(UFFDWP_ANSWER_UNTRIED, 0), \
	WORD(UFFDWP_ANSWER_KEPT, 1), \
	WORD(UFFDWP_ANSWER_LOST, 2), \
	WORD(UFFDWP_ANSWER_FAILED, 3), \
	WORD(UFFDWP_TRIAL_POPULATED, 0), \
	WORD(UFFDWP_TRIAL_UNPOPULATED, 1), \
	WORD(UFFDWP_TRIAL_DONTNEED, 2), \
	WORD(UFFDWP_TRIAL_PUNCH, 3), \
	WORD(UFFDWP_TRIAL_SWAP, 4), \
	WORD(UFFDWP_TRIAL_MREMAP, 5), \
	WORD(UFFDWP_ACCESS_SYSCALL, 0), \
	WORD(UFFDWP_ACCESS_DEVICE, 1), \
	WORD(UFFDWP_ACCESS_USER_MODE, 2), \
	WORD(UFFDWP_NUMA_DEFAULT, 0), \
	WORD(UFFDWP_NUMA_BIND, 1), \
	WORD(UFFDWP_NUMA_INTERLEAVE, 2), \
	WORD(UFFDWP_RESTORE_STATE_RUNNING, 0), \
	WORD(UFFDWP_RESTORE_STATE_DONE, 1), \
	WORD(UFFDWP_RESTORE_STATE_FAILED, 2), \
	WORD(UFFDWP_MEMORY_SHMEM, 0), \
	WORD(UFFDWP_MEMORY_HUGETLB, 1), \
	WORD(UFFDWP_MEMORY_ANON, 2), \
	WORD(UFFDWP_MECHANISM_AUTO, 0), \
	WORD(UFFDWP_MECHANISM_MARKER, 1), \
	WORD(UFFDWP_MECHANISM_REARM, 2), \
	WORD(UFFDWP_MECHANISM_MINOR, 3), \
	WORD(UFFDWP_MECHANISM_MPROTECT, 4), \
	WORD(UFFDWP_MECHANISM_ASYNC, 5), \
	WORD(UFFDWP_MECHANISM_SOFT_DIRTY, 6), \
	WORD(UFFDWP_ARMING_AUTO, 0), \
	WORD(UFFDWP_ARMING_ROUNDS, 1), \
	WORD(UFFDWP_ARMING_MOVE, 2), \
	WORD(UFFDWP_DELIVERY_AUTO, 0), \
	WORD(UFFDWP_DELIVERY_THREAD, 1), \
	WORD(UFFDWP_DELIVERY_INLINE, 2), \
	WORD(UFFDWP_LOSS_HOLE, 0), \
	WORD(UFFDWP_LOSS_SWAP, 1), \
	WORD(UFFDWP_LOSS_ZAP, 2), \
	WORD(UFFDWP_LOSS_UNMAPPED, 3), \
	WORD(UFFDWP_LOSS_UNKNOWN, 4), \
	WORD(UFFDWP_POLICY_WAIT, 0), \
	WORD(UFFDWP_POLICY_ABORT, 1), \
	WORD(UFFDWP_SINK_IMAGE, 0), \
	WORD(UFFDWP_SINK_STREAM, 1), \
	WORD(UFFDWP_SINK_CALLBACK, 2), \
	WORD(UFFDWP_SINK_NBD, 3), \
	WORD(UFFDWP_SNAPSHOT_STATE_RUNNING, 0), \
	WORD(UFFDWP_SNAPSHOT_STATE_COMMITTED, 1), \
	WORD(UFFDWP_SNAPSHOT_STATE_FAILED, 2), \
	WORD(UFFDWP_IMAGE_OPEN_RAW, 1), \
	WORD(UFFDWP_IMAGE_MERGE_BUFFERED, 2), \
	WORD(UFFDWP_PROBE_FILL_COPY_WP, 1), \
	WORD(UFFDWP_PROBE_FILL_CONTINUE_WP, 2), \
	WORD(UFFDWP_REGION_CREATE_SEALED, 1), \
	WORD(UFFDWP_REGION_CREATE_INHERIT, 2), \
	WORD(UFFDWP_REGION_CREATE_HUGETLB, 4), \
	WORD(UFFDWP_REGION_ATTACH_ALIASED, 8), \
	WORD(UFFDWP_REGION_ADOPT_PRIVATE, 16), \
	WORD(UFFDWP_RESTORE_RAW, 1), \
	WORD(UFFDWP_RESTORE_BEGIN_ON_DEMAND, 2), \
	WORD(UFFDWP_BUILT_URING, 1), \
	WORD(UFFDWP_BUILT_ZSTD, 2), \
	WORD(UFFDWP_BUILT_NUMA, 4), \
	WORD(UFFDWP_BUILT_NBD, 8), \
	WORD(UFFDWP_BUILT_CONTROL, 16), \
	WORD(UFFDWP_OPEN_NO_URING, 1), \
	WORD(UFFDWP_OPEN_USER_MODE, 2), \
	WORD(UFFDWP_OPEN_CONTROL, 4), \
	WORD(UFFDWP_CONTROL_LOOK, 1), \
	WORD(UFFDWP_CONTROL_SNAPSHOT, 2), \
	WORD(UFFDWP_CONTROL_ARM, 4), \
	WORD(UFFDWP_SNAPSHOT_BUFFERED, 1), \
	WORD(UFFDWP_SNAPSHOT_KEEP, 2), \
	WORD(UFFDWP_SNAPSHOT_INCREMENT, 4), \
	WORD(UFFDWP_SNAPSHOT_COARSE, 8), \
	WORD(UFFDWP_TRACK_START_POPULATED, 1), \
	WORD(UFFDWP_TRACK_START_NO_EVENTS, 4), \
	WORD(UFFDWP_TRACK_START_RESET_PROCESS, 8), \
	WORD(UFFDWP_TRACK_START_NO_GAPS, 64), \
	WORD(UFFDWP_TRACK_ADD_CLEAN, 16), \
	WORD(UFFDWP_TRACK_WRITTEN, 2), \
	WORD(UFFDWP_TRACK_COLLECT_PEEK, 32), \
	WORD(UFFDWP_FORK_BARE, 1), \
	WORD(UFFDWP_CHILD_STATE_RUNNING, 0), \
	WORD(UFFDWP_CHILD_STATE_ENDED, 1), \
	WORD(UFFDWP_CHILD_STATE_KILLED, 2), \
	WORD(UFFDWP_MAPPER_REGISTERED, 1), \
	WORD(UFFDWP_MAPPERS_MAX, 64), \
	WORD(UFFDWP_MAPPINGS_MAX, 16),
/* clang-format on */
