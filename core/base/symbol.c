#include "base/symbol.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

struct symbol {
    uintptr_t start;
    size_t size;
    const char *name; /* in the file */
};

struct tg_symbols {
    const char *file; /* mapped; NULL: it cannot be read */
    size_t file_size;
    uintptr_t base; /* where the executable was loaded */
    struct symbol *list;
    size_t count;
};

static int
by_start(const void *a, const void *b)
{
    const struct symbol *left = a;
    const struct symbol *right = b;
    return (left->start > right->start) - (left->start < right->start);
}

static bool
is_within(const struct tg_symbols *symbols, uint64_t offset, uint64_t size)
{
    return offset <= symbols->file_size && size <= symbols->file_size - offset;
}

/* The functions of one table; names must end within theirs. */
static void
read_table(struct tg_symbols *symbols, const ElfW(Shdr) * table, const ElfW(Shdr) * names)
{
    const size_t count = table->sh_size / sizeof(ElfW(Sym));
    if (!is_within(symbols, table->sh_offset, table->sh_size) ||
        !is_within(symbols, names->sh_offset, names->sh_size) || names->sh_size == 0 ||
        table->sh_offset % _Alignof(ElfW(Sym)) != 0 || symbols->file[names->sh_offset + names->sh_size - 1] != '\0') {
        return;
    }
    const ElfW(Sym) *entries = (const ElfW(Sym) *)(const void *)(symbols->file + table->sh_offset);
    symbols->list = tg_mem_alloc((count + 1) * sizeof *symbols->list);
    for (size_t i = 0; symbols->list != NULL && i < count; i++) {
        if ((entries[i].st_info & 0xf) == STT_FUNC && entries[i].st_shndx != SHN_UNDEF && entries[i].st_size > 0 &&
            entries[i].st_name < names->sh_size) {
            symbols->list[symbols->count++] = (struct symbol){symbols->base + entries[i].st_value, entries[i].st_size,
                                                              symbols->file + names->sh_offset + entries[i].st_name};
        }
    }
    if (symbols->count > 0) {
        qsort(symbols->list, symbols->count, sizeof *symbols->list, by_start);
    }
}

static void
read_file(struct tg_symbols *symbols)
{
    const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)(const void *)symbols->file;
    if (symbols->file_size < sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 ||
        head->e_shoff % _Alignof(ElfW(Shdr)) != 0 ||
        !is_within(symbols, head->e_shoff, (uint64_t)head->e_shnum * sizeof(ElfW(Shdr)))) {
        return;
    }
    if (head->e_type == ET_EXEC) {
        symbols->base = 0;
    }
    const ElfW(Shdr) *sections = (const ElfW(Shdr) *)(const void *)(symbols->file + head->e_shoff);
    for (unsigned i = 0; i < head->e_shnum; i++) {
        if (sections[i].sh_type == SHT_SYMTAB && sections[i].sh_link < head->e_shnum) {
            read_table(symbols, &sections[i], &sections[sections[i].sh_link]);
            return;
        }
    }
}

struct tg_symbols *
tg_symbols_new(void)
{
    struct stat st;
    Dl_info info;
    struct tg_symbols *symbols = tg_mem_new(struct tg_symbols);
    const int fd = symbols == NULL ? -1 : open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return symbols;
    }
    if (fstat(fd, &st) == 0 && st.st_size > 0 && dladdr((void *)(uintptr_t)tg_symbols_new, &info) != 0) {
        void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            symbols->file = file;
            symbols->file_size = (size_t)st.st_size;
            symbols->base = (uintptr_t)info.dli_fbase;
            read_file(symbols);
        }
    }
    close(fd);
    return symbols;
}

void
tg_symbols_free(struct tg_symbols *symbols)
{
    if (symbols == NULL) {
        return;
    }
    if (symbols->file != NULL) {
        (void)munmap((void *)(uintptr_t)symbols->file, symbols->file_size);
    }
    tg_mem_free(symbols->list);
    tg_mem_free(symbols);
}

static const char *
own_name(const struct tg_symbols *symbols, uintptr_t address)
{
    size_t low = 0;
    size_t high = symbols->count;
    while (low < high) { /* the last one that starts at or before it */
        const size_t middle = low + (high - low) / 2;
        if (symbols->list[middle].start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct symbol *found = low == 0 ? NULL : &symbols->list[low - 1];
    return found != NULL && address - found->start < found->size ? found->name : NULL;
}

bool
tg_symbols_name(const struct tg_symbols *symbols, uintptr_t address, char *out, size_t room)
{
    Dl_info info;
    out[0] = '\0';
    if (dladdr((void *)address, &info) == 0) {
        return false;
    }
    const char *name = own_name(symbols, address);
    name = name == NULL ? info.dli_sname : name;
    if (name != NULL) {
        /* What the optimizer appends (.lto_priv.0, .constprop.0) would divide one function into many. */
        (void)snprintf(out, room, "%.*s", (int)strcspn(name, "."), name);
    }
    if (out[0] == '\0') {
        const char *file = strrchr(info.dli_fname, '/');
        (void)snprintf(out, room, "[%s]", file == NULL ? info.dli_fname : file + 1);
    }
    return true;
}
