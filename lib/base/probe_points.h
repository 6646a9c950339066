/* SPDX-License-Identifier: MIT */
/*
 * Static probe points (USDT) for perf, bpftrace and SystemTap: provider `uffdwp`. Each is one nop until a tracer
 * attaches, and so may stand in the fault path. Without <sys/sdt.h> (package systemtap-sdt-dev) there are none.
 *
 *   fault(region, page, access, by)     a fault, or a barrier, is about to be resolved (enum fault_access, fault_by)
 *   save(region, first, end)            pre-images of pages [first, end) were kept
 *   release(region, first, end)         pages are about to be unprotected
 *   round(region, number, pages, calls) a round of arming has ended
 *   cut(region, pause_ns, pages)        faults are resumed
 *   commit(region, error, bytes)        a snapshot has ended: 0, or a negative errno
 *
 *     bpftrace -e 'usdt:LIBUFFDWP:uffdwp:cut { @pause_ns = hist(arg1); }'
 */
#ifndef UFFDWP_BASE_PROBE_POINTS_H
#define UFFDWP_BASE_PROBE_POINTS_H

#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define PROBE3(name, a, b, c) DTRACE_PROBE3(uffdwp, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(uffdwp, name, a, b, c, d)
#endif
#endif

#ifndef PROBE3
#define PROBE3(name, a, b, c) ((void)0)
#define PROBE4(name, a, b, c, d) ((void)0)
#endif

#endif
