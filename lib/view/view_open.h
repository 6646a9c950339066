/* SPDX-License-Identifier: MIT */
/* Opening and closing views; see region/view.h. */
#ifndef UFFDWP_VIEW_VIEW_OPEN_H
#define UFFDWP_VIEW_VIEW_OPEN_H

struct uffdwp_region;
struct uffdwp_view;

struct view_request {
	int (*cut_enter)(void *cut_user);
	void (*cut_leave)(void *cut_user);
	void *cut_user;
};

/* 0 or -errno, with text. */
int view_open(struct uffdwp_region *region, const struct view_request *request, struct uffdwp_view **out);
void view_close(struct uffdwp_view *view);

#endif
