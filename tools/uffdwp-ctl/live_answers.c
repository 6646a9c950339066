/* SPDX-License-Identifier: MIT */
/* See live_answers.h. */
#include "live_answers.h"

const struct shape answer_none[] = {{0}};

const struct shape answer_hello[] = {{"program", SHAPE_TEXT, 0, NULL}, {"allowed", SHAPE_TEXTS, SHAPE_ANY, NULL}, {0}};

/* -------------------------------------------------------------------------------------------------------- list -- */

static const struct shape answer_handler[] = {
        {"tid", SHAPE_NUMBER, 0, NULL},
        {"cpu", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {0},
};

static const struct shape answer_runtime[] = {
        {"runtime", SHAPE_NUMBER, 0, NULL},         {"access", SHAPE_TEXT, SHAPE_ANY, NULL},
        {"uring", SHAPE_TRUTH, SHAPE_ANY, NULL},    {"handlers", SHAPE_LIST, SHAPE_ANY, answer_handler},
        {"open_ns", SHAPE_NUMBER, SHAPE_ANY, NULL}, {0},
};

static const struct shape answer_list_region[] = {
        {"region", SHAPE_NUMBER, 0, NULL},
        {"runtime", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"memory", SHAPE_TEXT, 0, NULL},
        {"mechanism", SHAPE_TEXT, 0, NULL},
        {"delivery", SHAPE_TEXT, 0, NULL},
        {"address", SHAPE_TEXT, 0, NULL},
        {"length", SHAPE_NUMBER, 0, NULL},
        {"capacity", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"page", SHAPE_NUMBER, 0, NULL},
        {"state", SHAPE_TEXT, 0, NULL},
        {"dead", SHAPE_TEXT, SHAPE_ANY, NULL},
        {"mappers", SHAPE_NUMBERS, SHAPE_ANY, NULL},
        {"children", SHAPE_NUMBERS, SHAPE_ANY, NULL},
        {"snapshot", SHAPE_TRUTH, SHAPE_ANY, NULL},
        {"restore", SHAPE_TRUTH, SHAPE_ANY, NULL},
        {"tracks", SHAPE_TRUTH, SHAPE_ANY, NULL},
        {"views", SHAPE_TRUTH, SHAPE_ANY, NULL},
        {0},
};

const struct shape answer_list[] = {
        {"pid", SHAPE_NUMBER, 0, NULL},
        {"program", SHAPE_TEXT, 0, NULL},
        {"version", SHAPE_TEXT, SHAPE_ANY, NULL},
        {"runtimes", SHAPE_LIST, SHAPE_ABSENT, answer_runtime},
        {"regions", SHAPE_LIST, 0, answer_list_region},
        {0},
};

/* -------------------------------------------------------------------------------------------------------- stat -- */

static const struct shape answer_pool[] = {
        {"bytes", SHAPE_NUMBER, 0, NULL},
        {"used_bytes", SHAPE_NUMBER, 0, NULL},
        {"peak_bytes", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {0},
};

/* struct uffdwp_snapshot_progress, and what is around it. */
static const struct shape answer_progress[] = {
        {"snapshot", SHAPE_NUMBER, 0, NULL},      {"region", SHAPE_NUMBER, 0, NULL},
        {"path", SHAPE_TEXT, SHAPE_ANY, NULL},    {"by", SHAPE_TEXT, SHAPE_ANY, NULL},
        {"state", SHAPE_TEXT, 0, NULL},           {"error", SHAPE_TEXT, SHAPE_ANY, NULL},
        {"text", SHAPE_TEXT, SHAPE_ANY, NULL},    {"length_bytes", SHAPE_NUMBER, 0, NULL},
        {"pages_total", SHAPE_NUMBER, 0, NULL},   {"pages_fault", SHAPE_NUMBER, 0, NULL},
        {"pages_prepare", SHAPE_NUMBER, 0, NULL}, {"pages_sweep", SHAPE_NUMBER, 0, NULL},
        {"pages_hole", SHAPE_NUMBER, 0, NULL},    {"faults", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"waits", SHAPE_NUMBER, SHAPE_ANY, NULL}, {"pool_peak_bytes", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"bytes_written", SHAPE_NUMBER, 0, NULL}, {"pause_ns", SHAPE_NUMBER, 0, NULL},
        {"elapsed_ns", SHAPE_NUMBER, 0, NULL},    {0},
};

static const struct shape answer_restore[] = {
        {"state", SHAPE_TEXT, 0, NULL},
        {"pages_total", SHAPE_NUMBER, 0, NULL},
        {"pages_done", SHAPE_NUMBER, 0, NULL},
        {"pages_failed", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"elapsed_ns", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {0},
};

static const struct shape answer_histogram[] = {
        {"count", SHAPE_NUMBER, 0, NULL},
        {"sum_ns", SHAPE_NUMBER, 0, NULL},
        {"max_ns", SHAPE_NUMBER, 0, NULL},
        {"p50_ns", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"p90_ns", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"p99_ns", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"p999_ns", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"buckets", SHAPE_PAIRS, 0, NULL},
        {0},
};

static const struct shape answer_latency[] = {
        {"thread", SHAPE_OBJECT, SHAPE_ANY, answer_histogram},
        {"inline", SHAPE_OBJECT, SHAPE_ANY, answer_histogram},
        {0},
};

static const struct shape answer_thread[] = {
        {"tid", SHAPE_NUMBER, 0, NULL},
        {"faults", SHAPE_NUMBER, 0, NULL},
        {0},
};

static const struct shape answer_stat_region[] = {
        {"region", SHAPE_NUMBER, 0, NULL},
        {"faults", SHAPE_NUMBER, 0, NULL},
        {"faults_repeated", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"pages_disarmed", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"events_remove", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"events_remap", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"events_unmap", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"pages_lost", SHAPE_NUMBER, 0, NULL},
        {"snapshots", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"lost_by", SHAPE_COUNTS, 0, NULL},
        {"pages_rearmed", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"pages_filled", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"armed_pages", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"dirty_pages", SHAPE_NUMBER, SHAPE_ANY, NULL},
        {"pool", SHAPE_OBJECT, SHAPE_ANY, answer_pool},
        {"snapshot", SHAPE_OBJECT, SHAPE_ANY, answer_progress},
        {"restore", SHAPE_OBJECT, SHAPE_ANY, answer_restore},
        {"latency", SHAPE_OBJECT, SHAPE_ANY, answer_latency},
        {"threads", SHAPE_LIST, SHAPE_ANY, answer_thread},
        {0},
};

const struct shape answer_stat[] = {
        {"now_ns", SHAPE_NUMBER, 0, NULL},
        {"regions", SHAPE_LIST, 0, answer_stat_region},
        {"ended", SHAPE_LIST, SHAPE_ANY, answer_progress},
        {0},
};

/* -------------------------------------------------------------------------------------------------------- rest -- */

const struct shape answer_snapshot[] = {
        {"snapshot", SHAPE_NUMBER, 0, NULL},
        {"pause_ns", SHAPE_NUMBER, 0, NULL},
        {"begin_ns", SHAPE_NUMBER, 0, NULL},
        {0},
};

const struct shape answer_audit[] = {
        {"pages_armed", SHAPE_NUMBER, 0, NULL},
        {"pages_lost", SHAPE_NUMBER, 0, NULL},
        {"pages_rearmed", SHAPE_NUMBER, 0, NULL},
        {0},
};

const struct shape answer_pages[] = {{"pages", SHAPE_NUMBER, 0, NULL}, {0}};

const struct shape answer_event[] = {{"event", SHAPE_TEXT, 0, NULL}, {0}};

const struct shape answer_write[] = {
        {"ns", SHAPE_NUMBER, 0, NULL},
        {"region", SHAPE_NUMBER, 0, NULL},
        {"offset", SHAPE_NUMBER, 0, NULL},
        {"address", SHAPE_TEXT, 0, NULL},
        {"tid", SHAPE_NUMBER, SHAPE_NULL, NULL},
        {"kind", SHAPE_TEXT, 0, NULL},
        {0},
};

const struct shape answer_tick[] = {
        {"seen", SHAPE_NUMBER, 0, NULL},
        {"sent", SHAPE_NUMBER, 0, NULL},
        {"dropped", SHAPE_NUMBER, 0, NULL},
        {"last", SHAPE_FLAG, SHAPE_ABSENT, NULL},
        {0},
};
