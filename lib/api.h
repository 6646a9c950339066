/* SPDX-License-Identifier: MIT */
/* What tests want of the exporter beyond uffdwp.h: a runtime on a kernel of their own. */
#ifndef UFFDWP_API_H
#define UFFDWP_API_H

#include "kernel/kernel.h"
#include "uffdwp.h"

int api_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct uffdwp **out);

#endif
