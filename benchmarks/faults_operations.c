/* Kills its process at the Nth operation that changes files below a folder, or copies the folder at
   every operation, as a kill there would leave it.

   Loaded with LD_PRELOAD, so that it sees what Python and native libraries (safetensors writes from
   Rust) call in the C library. Operations: open for writing, write, flush to disk, truncate, rename,
   link, unlink, make and remove a folder. A write is cut in half: the half is written, then comes
   SIGKILL. Everything else is killed before it happens, which leaves what was there after the
   operation before it. A copy is made at the same places, and the operation then goes on. See
   faults.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_FILES 4096

static char folder[PATH_MAX], copies[PATH_MAX];
static size_t folder_length;
static long kill_at, count;
static __thread long number_here;
static int list_to = -1;
static char watched[MOST_FILES]; /* by file descriptor */

/* From now on: count below `path`, kill at operation number `number` (0: never), and write the name
   of every operation to the descriptor `list` (-1: to none). */
void faults_start(const char *path, long number, int list)
{
    folder_length = strlen(path);
    memcpy(folder, path, folder_length + 1);
    kill_at = number;
    list_to = list;
    count = 0;
}

long faults_count(void) { return count; }

/* Copy the folder to `path`/N at every operation N, instead of a kill. */
void faults_keep(const char *path) { snprintf(copies, sizeof copies, "%s", path); }

static int below(int at, const char *path)
{
    char full[PATH_MAX * 2], link[64];
    size_t length = 0;
    if (folder_length == 0 || path == NULL)
        return 0;
    if (path[0] != '/') {
        ssize_t found;
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        found = readlink(link, full, PATH_MAX);
        if (found < 0)
            return 0;
        length = (size_t)found;
        full[length++] = '/';
    }
    snprintf(full + length, sizeof full - length, "%s", path);
    return strncmp(full, folder, folder_length) == 0 &&
           (full[folder_length] == '/' || full[folder_length] == '\0');
}

static void copy(void)
{
    char target[PATH_MAX + 32], *words[] = {"cp", "-a", folder, target, NULL};
    char *nothing_loaded[] = {"PATH=/usr/bin:/bin", NULL};
    int status = -1;
    pid_t child;
    snprintf(target, sizeof target, "%s/%ld", copies, number_here);
    if (posix_spawnp(&child, "cp", NULL, NULL, words, nothing_loaded) == 0)
        waitpid(child, &status, 0);
    if (status != 0)
        abort();
}

/* End the process, or copy the folder and return. */
static void stop(void)
{
    if (copies[0] != '\0') {
        copy();
        return;
    }
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Count one operation; return whether the process must stop at it. */
static int reached(const char *name, const char *path)
{
    long number = __sync_add_and_fetch(&count, 1);
    if (list_to >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path ? path : "");
        syscall(SYS_write, list_to, line, (size_t)length);
    }
    number_here = number;
    return number == kill_at || copies[0] != '\0';
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (next == NULL) \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define AT_PATH(label, at, path) \
    if (below(at, path) && reached(label, path)) \
        stop()

#define AT_FILE(label, file) \
    if (file >= 0 && file < MOST_FILES && watched[file] && reached(label, NULL)) \
        stop()

static int watch(int file, int is_below)
{
    if (file >= 0 && file < MOST_FILES)
        watched[file] = (char)is_below;
    return file;
}

#define OPEN(function, declared, given, at) \
    int function declared \
    { \
        mode_t mode = 0; \
        int changes = (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; \
        int is_below = changes && below(at, path); \
        NEXT(function); \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            mode = (mode_t)va_arg(more, int); \
            va_end(more); \
        } \
        if (is_below && reached("open", path)) \
            stop(); \
        return watch(next given, is_below); \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)

#define FOPEN(function) \
    FILE *function(const char *path, const char *mode) \
    { \
        int is_below = strpbrk(mode, "wa+") != NULL && below(AT_FDCWD, path); \
        FILE *file; \
        NEXT(function); \
        if (is_below && reached("open", path)) \
            stop(); \
        file = next(path, mode); \
        if (file != NULL) \
            watch(fileno(file), is_below); \
        return file; \
    }

FOPEN(fopen)
FOPEN(fopen64)

int close(int file)
{
    NEXT(close);
    watch(file, 0);
    return next(file);
}

#define WRITES(file) (file >= 0 && file < MOST_FILES && watched[file] && reached("write", NULL))

ssize_t write(int file, const void *data, size_t size)
{
    NEXT(write);
    if (WRITES(file)) {
        ssize_t half = next(file, data, size / 2), rest;
        stop();
        rest = half < 0 ? half : next(file, (const char *)data + half, size - (size_t)half);
        return rest < 0 ? rest : half + rest;
    }
    return next(file, data, size);
}

#define PWRITE(function, offset_type) \
    ssize_t function(int file, const void *data, size_t size, offset_type offset) \
    { \
        NEXT(function); \
        if (WRITES(file)) { \
            ssize_t half = next(file, data, size / 2, offset), rest; \
            stop(); \
            if (half < 0) \
                return half; \
            rest = next(file, (const char *)data + half, size - (size_t)half, offset + half); \
            return rest < 0 ? rest : half + rest; \
        } \
        return next(file, data, size, offset); \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int number)
{
    NEXT(writev);
    if (WRITES(file)) {
        ssize_t half = next(file, parts, number / 2), rest;
        stop();
        rest = half < 0 ? half : next(file, parts + number / 2, number - number / 2);
        return rest < 0 ? rest : half + rest;
    }
    return next(file, parts, number);
}

#define ON_FILE(label, function, declared, given) \
    int function declared \
    { \
        NEXT(function); \
        AT_FILE(label, file); \
        return next given; \
    }

ON_FILE("flush", fsync, (int file), (file))
ON_FILE("flush", fdatasync, (int file), (file))
ON_FILE("truncate", ftruncate, (int file, off_t size), (file, size))
ON_FILE("truncate", ftruncate64, (int file, off64_t size), (file, size))

#define ON_PATH(label, function, declared, given, at, path) \
    int function declared \
    { \
        NEXT(function); \
        AT_PATH(label, at, path); \
        return next given; \
    }

ON_PATH("rename", rename, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("rename", renameat, (int at, const char *from, int into, const char *to),
        (at, from, into, to), into, to)
ON_PATH("link", symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("link", symlinkat, (const char *from, int into, const char *to), (from, into, to), into, to)
ON_PATH("link", link, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("unlink", unlink, (const char *path), (path), AT_FDCWD, path)
ON_PATH("unlink", unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path)
ON_PATH("remove folder", rmdir, (const char *path), (path), AT_FDCWD, path)
ON_PATH("make folder", mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
ON_PATH("make folder", mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), at, path)
