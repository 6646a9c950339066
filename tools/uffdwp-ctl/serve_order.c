/* SPDX-License-Identifier: MIT */
/* What of a restore is fetched first, and what is recorded; see serve_order.h. */
#include "serve_order.h"

void serve_order_begin(struct serve_client *client)
{
	(void)client;
}

void serve_order_end(struct serve_client *client, int error)
{
	(void)client;
	(void)error;
}
