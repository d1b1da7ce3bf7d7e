/* The C side of bench/acl: builds an rte_acl context from a file of rules and
 * classifies a file of keys, as a Go program tells it to, line by line, on
 * standard input. Answers go to standard output, one line each; whatever EAL
 * has to say goes to standard error.
 *
 *	build FILE	-> built NANOSECONDS BYTES RULES
 *	keys FILE	-> keys COUNT
 *	alg NAME	-> ok | unavailable
 *	time LEAST BATCH	-> took NANOSECONDS	(a pass, of this thread, on the CPU)
 *	results FILE	-> written COUNT
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

/* What a packet is looked up by, as bench/acl writes it: network order. */
struct key {
	uint8_t proto;
	uint8_t pad[3];
	uint32_t remote;
	uint16_t row;
	uint16_t port;
};

/* One rule of the file: host order. */
struct line {
	uint32_t remote, bits;
	uint32_t proto, proto_mask;
	uint32_t row;
	uint32_t from, to;
	uint32_t priority, userdata;
};

enum { PROTO, REMOTE, ROW, PORT, FIELDS };

static const struct rte_acl_field_def fields[FIELDS] = {
	{ RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTO, 0, offsetof(struct key, proto) },
	{ RTE_ACL_FIELD_TYPE_MASK, 4, REMOTE, 1, offsetof(struct key, remote) },
	{ RTE_ACL_FIELD_TYPE_BITMASK, 2, ROW, 2, offsetof(struct key, row) },
	{ RTE_ACL_FIELD_TYPE_RANGE, 2, PORT, 2, offsetof(struct key, port) },
};

RTE_ACL_RULE_DEF(rule, FIELDS);

static const struct {
	const char *name;
	enum rte_acl_classify_alg alg;
} algs[] = {
	{ "scalar", RTE_ACL_CLASSIFY_SCALAR },
	{ "sse", RTE_ACL_CLASSIFY_SSE },
	{ "avx2", RTE_ACL_CLASSIFY_AVX2 },
	{ "avx512x16", RTE_ACL_CLASSIFY_AVX512X16 },
	{ "avx512x32", RTE_ACL_CLASSIFY_AVX512X32 },
};

static struct rte_acl_ctx *ctx;
static struct key *keys;
static const uint8_t **pointers;
static uint32_t *results;
static uint32_t count;

static void die(const char *what)
{
	fprintf(stderr, "acl: %s\n", what);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t heap(void)
{
	struct rte_malloc_socket_stats s;

	return rte_malloc_get_socket_stats(0, &s) == 0 ? s.heap_allocsz_bytes : 0;
}

/* EAL's heap without hugetlbfs is plain pages: ask for large ones, as the
 * kernel gives them to whoever asks. */
static int advise(const struct rte_memseg_list *list, void *arg)
{
	(void)arg;
	madvise(list->base_va, list->len, MADV_HUGEPAGE);
	return 0;
}

static void *read_file(const char *path, size_t size, uint32_t *n)
{
	FILE *f = fopen(path, "rb");
	long len;
	void *data;

	if (!f || fseek(f, 0, SEEK_END) || (len = ftell(f)) < 0)
		die("can't open the file");
	rewind(f);
	data = malloc(len + 1);
	if (!data || fread(data, 1, len, f) != (size_t)len || len % size)
		die("can't read the file");
	fclose(f);
	*n = len / size;
	return data;
}

static void fill(struct rule *r, const struct line *l)
{
	memset(r, 0, sizeof(*r));
	r->data.category_mask = 1;
	r->data.priority = l->priority;
	r->data.userdata = l->userdata;
	r->field[PROTO].value.u8 = l->proto;
	r->field[PROTO].mask_range.u8 = l->proto_mask;
	r->field[REMOTE].value.u32 = l->remote;
	r->field[REMOTE].mask_range.u32 = l->bits;
	r->field[ROW].value.u16 = l->row;
	r->field[ROW].mask_range.u16 = 0xffff;
	r->field[PORT].value.u16 = l->from;
	r->field[PORT].mask_range.u16 = l->to;
}

static void build(const char *path)
{
	struct rte_acl_config cfg = { .num_categories = 1, .num_fields = FIELDS };
	struct rte_acl_param param = { .name = "bench", .rule_size = RTE_ACL_RULE_SZ(FIELDS) };
	uint32_t n;
	struct line *lines = read_file(path, sizeof(*lines), &n);
	struct rule *rules = calloc(n, sizeof(*rules));
	uint64_t start, took, before;

	if (!rules)
		die("out of memory");
	for (uint32_t i = 0; i < n; i++)
		fill(&rules[i], &lines[i]);
	if (ctx)
		rte_acl_free(ctx);
	param.max_rule_num = n;
	memcpy(cfg.defs, fields, sizeof(fields));
	ctx = rte_acl_create(&param);
	if (!ctx || rte_acl_add_rules(ctx, (struct rte_acl_rule *)rules, n))
		die("can't add the rules");
	before = heap();
	start = now(CLOCK_MONOTONIC);
	if (rte_acl_build(ctx, &cfg))
		die("can't build the context");
	took = now(CLOCK_MONOTONIC) - start;
	rte_memseg_list_walk(advise, NULL);
	printf("built %lu %lu %u\n", took, heap() - before, n);
	free(rules);
	free(lines);
}

static void load(const char *path)
{
	keys = read_file(path, sizeof(*keys), &count);
	pointers = calloc(count, sizeof(*pointers));
	results = calloc(count, sizeof(*results));
	if (!pointers || !results)
		die("out of memory");
	for (uint32_t i = 0; i < count; i++)
		pointers[i] = (const uint8_t *)&keys[i];
	printf("keys %u\n", count);
}

static void choose(const char *name)
{
	for (size_t i = 0; i < RTE_DIM(algs); i++)
		if (!strcmp(algs[i].name, name) && !rte_acl_set_ctx_classify(ctx, algs[i].alg)) {
			puts("ok");
			return;
		}
	puts("unavailable");
}

/* Classifies all packets, again and again for at least that long, and returns
 * how long a pass took. */
static uint64_t run(uint64_t least, uint32_t batch)
{
	uint64_t start = now(CLOCK_THREAD_CPUTIME_ID), took;
	uint32_t passes = 0;

	do {
		for (uint32_t i = 0; i < count; i += batch)
			if (rte_acl_classify(ctx, pointers + i, results + i, RTE_MIN(batch, count - i), 1))
				die("can't classify");
		passes++;
		took = now(CLOCK_THREAD_CPUTIME_ID) - start;
	} while (took < least);
	return took / passes;
}

static void timed(uint64_t least, uint32_t batch)
{
	run(least, batch); /* others have had the CPU and its caches */
	printf("took %lu\n", run(least, batch));
}

static void write_results(const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(results, sizeof(*results), count, f) != count || fclose(f))
		die("can't write the results");
	printf("written %u\n", count);
}

int main(int argc, char **argv)
{
	char line[4352], arg[4096];
	uint64_t least;
	uint32_t batch;

	if (rte_eal_init(argc, argv) < 0)
		die("can't start EAL");
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "build %4095s", arg) == 1)
			build(arg);
		else if (sscanf(line, "keys %4095s", arg) == 1)
			load(arg);
		else if (sscanf(line, "alg %4095s", arg) == 1)
			choose(arg);
		else if (sscanf(line, "time %lu %u", &least, &batch) == 2 && batch > 0)
			timed(least, batch);
		else if (sscanf(line, "results %4095s", arg) == 1)
			write_results(arg);
		else
			die("don't understand the command");
	}
	return 0;
}
