/* SPDX-License-Identifier: MIT */
/* The audit: is what the ledger holds for armed still protected? Called with the region's lock held and all signals
 * blocked. */
#ifndef UFFDWP_FAULT_AUDIT_H
#define UFFDWP_FAULT_AUDIT_H

#include "region/region.h"
#include "uffdwp.h"

/* `pagemap`: open, and known to show marks where the mechanism makes any. 0, -ESTALE (the registration is gone: the
 * region is dead now), or -errno. */
int audit_run(struct uffdwp_region *region, int pagemap, struct uffdwp_audit *audit);

#endif
