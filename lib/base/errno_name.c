/* SPDX-License-Identifier: MIT */
#include "base/errno_name.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define NAME(number) [number] = #number

/* What has two numbers on some machine and one on others is there once: EAGAIN, EDEADLK, EOPNOTSUPP. */
static const char *const errno_names[] = {
        [0] = "0",
        NAME(EPERM),
        NAME(ENOENT),
        NAME(ESRCH),
        NAME(EINTR),
        NAME(EIO),
        NAME(ENXIO),
        NAME(E2BIG),
        NAME(ENOEXEC),
        NAME(EBADF),
        NAME(ECHILD),
        NAME(EAGAIN),
        NAME(ENOMEM),
        NAME(EACCES),
        NAME(EFAULT),
        NAME(ENOTBLK),
        NAME(EBUSY),
        NAME(EEXIST),
        NAME(EXDEV),
        NAME(ENODEV),
        NAME(ENOTDIR),
        NAME(EISDIR),
        NAME(EINVAL),
        NAME(ENFILE),
        NAME(EMFILE),
        NAME(ENOTTY),
        NAME(ETXTBSY),
        NAME(EFBIG),
        NAME(ENOSPC),
        NAME(ESPIPE),
        NAME(EROFS),
        NAME(EMLINK),
        NAME(EPIPE),
        NAME(EDOM),
        NAME(ERANGE),
        NAME(EDEADLK),
        NAME(ENAMETOOLONG),
        NAME(ENOLCK),
        NAME(ENOSYS),
        NAME(ENOTEMPTY),
        NAME(ELOOP),
        NAME(ENOMSG),
        NAME(EIDRM),
        NAME(ECHRNG),
        NAME(EL2NSYNC),
        NAME(EL3HLT),
        NAME(EL3RST),
        NAME(ELNRNG),
        NAME(EUNATCH),
        NAME(ENOCSI),
        NAME(EL2HLT),
        NAME(EBADE),
        NAME(EBADR),
        NAME(EXFULL),
        NAME(ENOANO),
        NAME(EBADRQC),
        NAME(EBADSLT),
        NAME(EBFONT),
        NAME(ENOSTR),
        NAME(ENODATA),
        NAME(ETIME),
        NAME(ENOSR),
        NAME(ENONET),
        NAME(ENOPKG),
        NAME(EREMOTE),
        NAME(ENOLINK),
        NAME(EADV),
        NAME(ESRMNT),
        NAME(ECOMM),
        NAME(EPROTO),
        NAME(EMULTIHOP),
        NAME(EDOTDOT),
        NAME(EBADMSG),
        NAME(EOVERFLOW),
        NAME(ENOTUNIQ),
        NAME(EBADFD),
        NAME(EREMCHG),
        NAME(ELIBACC),
        NAME(ELIBBAD),
        NAME(ELIBSCN),
        NAME(ELIBMAX),
        NAME(ELIBEXEC),
        NAME(EILSEQ),
        NAME(ERESTART),
        NAME(ESTRPIPE),
        NAME(EUSERS),
        NAME(ENOTSOCK),
        NAME(EDESTADDRREQ),
        NAME(EMSGSIZE),
        NAME(EPROTOTYPE),
        NAME(ENOPROTOOPT),
        NAME(EPROTONOSUPPORT),
        NAME(ESOCKTNOSUPPORT),
        NAME(EOPNOTSUPP),
        NAME(EPFNOSUPPORT),
        NAME(EAFNOSUPPORT),
        NAME(EADDRINUSE),
        NAME(EADDRNOTAVAIL),
        NAME(ENETDOWN),
        NAME(ENETUNREACH),
        NAME(ENETRESET),
        NAME(ECONNABORTED),
        NAME(ECONNRESET),
        NAME(ENOBUFS),
        NAME(EISCONN),
        NAME(ENOTCONN),
        NAME(ESHUTDOWN),
        NAME(ETOOMANYREFS),
        NAME(ETIMEDOUT),
        NAME(ECONNREFUSED),
        NAME(EHOSTDOWN),
        NAME(EHOSTUNREACH),
        NAME(EALREADY),
        NAME(EINPROGRESS),
        NAME(ESTALE),
        NAME(EUCLEAN),
        NAME(ENOTNAM),
        NAME(ENAVAIL),
        NAME(EISNAM),
        NAME(EREMOTEIO),
        NAME(EDQUOT),
        NAME(ENOMEDIUM),
        NAME(EMEDIUMTYPE),
        NAME(ECANCELED),
        NAME(ENOKEY),
        NAME(EKEYEXPIRED),
        NAME(EKEYREVOKED),
        NAME(EKEYREJECTED),
        NAME(EOWNERDEAD),
        NAME(ENOTRECOVERABLE),
        NAME(ERFKILL),
        NAME(EHWPOISON),
};

const char *errno_name(int error)
{
	size_t number = (size_t)(error < 0 ? -(long)error : error);

	return number < sizeof(errno_names) / sizeof(*errno_names) ? errno_names[number] : NULL;
}

#if !defined(__GLIBC__)
#define errno_describe(number) strerror(number) /* musl: a table */
#elif __GLIBC_PREREQ(2, 32)
#define errno_describe(number) strerrordesc_np(number)
#else
#define errno_describe(number) errno_name(number)
#endif

const char *errno_text(int error)
{
	const char *text = errno_describe(error < 0 ? (int)(0u - (unsigned)error) : error);

	return text ? text : "an error without a name";
}
