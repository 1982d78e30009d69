/*
 * Put a simulated SEV firmware behind /dev/sev, for a program that is started with LD_PRELOAD.
 *
 * SEV_SHIM_SOCKET names a Unix socket. Opening /dev/sev connects to it, and SEV_ISSUE_CMD sends
 * the flags of open(), the command, its structure and the certificates that it imports. The answer
 * has an errno, the status code, the structure, and what goes into the program's buffers, which
 * are found with the kernel's own structures. With SEV_SHIM_ERRNO, opening fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/psp-sev.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BUFFERS 2

struct buffer {
    void *address;
    uint32_t room;
};

static int sev = -1;
static uint32_t sev_flags;

static int opened(int flags)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    const char *failing = getenv("SEV_SHIM_ERRNO");

    if (failing) {
        errno = atoi(failing);
        return -1;
    }
    strncpy(place.sun_path, getenv("SEV_SHIM_SOCKET"), sizeof(place.sun_path) - 1);
    sev = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sev_flags = flags;
    if (connect(sev, (struct sockaddr *)&place, sizeof(place)))
        abort();
    return sev;
}

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...)                          \
    {                                                                   \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);  \
        va_list more;                                                   \
        if (!strcmp(path, "/dev/sev"))                                  \
            return opened(flags);                                       \
        va_start(more, flags);                                          \
        mode_t mode = va_arg(more, mode_t);                             \
        va_end(more);                                                   \
        return real(path, flags, mode);                                 \
    }

#define OPENAT(name)                                                        \
    int name(int folder, const char *path, int flags, ...)                  \
    {                                                                       \
        int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        va_list more;                                                       \
        if (!strcmp(path, "/dev/sev"))                                      \
            return opened(flags);                                           \
        va_start(more, flags);                                              \
        mode_t mode = va_arg(more, mode_t);                                 \
        va_end(more);                                                       \
        return real(folder, path, flags, mode);                             \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static void put(const void *data, size_t size)
{
    for (ssize_t done; size; data = (const char *)data + done, size -= done)
        if ((done = write(sev, data, size)) <= 0)
            abort();
}

static void get(void *data, size_t size)
{
    for (ssize_t done; size; data = (char *)data + done, size -= done)
        if ((done = read(sev, data, size)) <= 0)
            abort();
}

/* Find the buffers of a command's structure; returns the size of the structure. */
static uint32_t layout(uint32_t command, void *data, struct buffer *found)
{
    switch (command) {
    case SEV_PLATFORM_STATUS:
        return sizeof(struct sev_user_data_status);
    case SEV_PEK_CSR: {
        struct sev_user_data_pek_csr *own = data;
        found[0] = (struct buffer){(void *)(uintptr_t)own->address, own->length};
        return sizeof(*own);
    }
    case SEV_GET_ID2: {
        struct sev_user_data_get_id2 *own = data;
        found[0] = (struct buffer){(void *)(uintptr_t)own->address, own->length};
        return sizeof(*own);
    }
    case SEV_PDH_CERT_EXPORT: {
        struct sev_user_data_pdh_cert_export *own = data;
        found[0] = (struct buffer){(void *)(uintptr_t)own->pdh_cert_address, own->pdh_cert_len};
        found[1] = (struct buffer){(void *)(uintptr_t)own->cert_chain_address, own->cert_chain_len};
        return sizeof(*own);
    }
    case SEV_PEK_CERT_IMPORT: {
        struct sev_user_data_pek_cert_import *own = data;
        found[0] = (struct buffer){(void *)(uintptr_t)own->pek_cert_address, own->pek_cert_len};
        found[1] = (struct buffer){(void *)(uintptr_t)own->oca_cert_address, own->oca_cert_len};
        return sizeof(*own);
    }
    }
    return 0;
}

static int issue(struct sev_issue_cmd *argument)
{
    struct buffer found[BUFFERS] = {{0}};
    uint32_t command = argument->cmd, count = 0, sent, status;
    int32_t error;
    void *data = (void *)(uintptr_t)argument->data;
    uint32_t size = layout(command, data, found);

    put(&sev_flags, sizeof(sev_flags));
    put(&command, sizeof(command));
    put(&size, sizeof(size));
    put(data, size);
    for (int i = 0; i < BUFFERS && command == SEV_PEK_CERT_IMPORT; i++) {
        put(&found[i].room, sizeof(found[i].room));
        put(found[i].address, found[i].room);
    }
    get(&error, sizeof(error));
    get(&status, sizeof(status));
    get(data, size);
    get(&count, sizeof(count));
    for (uint32_t i = 0; i < count; i++) {
        get(&sent, sizeof(sent));
        if (sent > found[i].room)
            abort();
        get(found[i].address, sent);
    }
    argument->error = status;
    errno = error;
    return error ? -1 : 0;
}

int ioctl(int file, unsigned long request, ...)
{
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list more;

    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    /* Python passes the number as an int: the upper half may be its sign. */
    if (sev >= 0 && file == sev && (uint32_t)request == (uint32_t)SEV_ISSUE_CMD)
        return issue(argument);
    return real(file, request, argument);
}
