/* SPDX-License-Identifier: MIT */
/* The audit: is what is armed in the ledger still protected? */
#ifndef UFFDWP_FAULT_AUDIT_H
#define UFFDWP_FAULT_AUDIT_H

#include "region/region.h"
#include "uffdwp.h"

/* For one region, for the caller of the library: takes the region's lock, and reports losses. 0; -EOPNOTSUPP: the
 * kernel shows no wp bits; -ESTALE as below; -errno; with text. */
int audit_region(struct uffdwp_region *region, struct uffdwp_audit *found);

/* With the region's lock held and all signals blocked. `pagemap`: open, and known to show wp bits where the mechanism
 * makes any. 0, -ESTALE (the registration is gone: the region is dead now), or -errno. */
int audit_run(struct uffdwp_region *region, int pagemap, struct uffdwp_audit *audit);

#endif
