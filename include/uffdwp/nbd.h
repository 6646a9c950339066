/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, which includes it: images on network block devices. The conventions are those told there. */
#ifndef UFFDWP_NBD_H
#define UFFDWP_NBD_H

#include "../uffdwp.h"

/*
 * UFFDWP_SINK_NBD writes to an export of a network block device (nbdkit, qemu-nbd, nbd-server ...) through libnbd,
 * which is loaded when it is first needed; a program that does not use this sink does not carry it. `path` is a URI as
 * libnbd takes it: nbd://host[:port]/export, nbds://... (TLS, with tls-certificates=, tls-psk-file=),
 * nbd+unix:///export?socket=PATH. The export must be writable, must be able to flush, and hold the image; bytes beyond
 * the image stay as they are.
 *
 * An export cannot be renamed. So before anything else its first block (512 bytes, or one block of a server that has
 * larger ones) becomes the text UFFDWP_NBD_UNFINISHED, flushed; it becomes the image's first block last, when all else
 * is written and flushed, and is flushed again. An export that does not start with that text is what it was
 * before, or complete, at any moment and after any crash, if the server's flush can be trusted. A snapshot that fails
 * after its start leaves the export unfinished: what was there is lost; one whose server is lost while the first block
 * is on its way fails, and may be complete.
 *
 * A slow server is waited for, by writers only when the pool is used up (`policy`). An error of the server ends the
 * snapshot with its text, and so does a lost connection: at once where the server is gone, within half a minute where
 * its machine is. A server that is there and silent is waited for until the snapshot is aborted, or writers have waited
 * for wait_ns. libnbd allocates in the snapshot's thread: not for programs whose heap lies in a region.
 *
 * An export holds a raw image: with a `parent` the sink is refused (-EINVAL), and such an image cannot be the parent of
 * a delta (-EXDEV), which needs to find it again as a file. Nothing of this library reads exports. Whoever reads one
 * back (nbdcopy(1), qemu-img) must first refuse one that begins with UFFDWP_NBD_UNFINISHED; a copy of such an export
 * that is a file is refused by uffdwp_image_open() (-EBADMSG).
 */
#define UFFDWP_NBD_UNFINISHED "uffdwp: unfinished image\n"

#endif
