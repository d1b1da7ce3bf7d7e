/* A packet filter on DPDK: forwards IPv4 between two ports, port 0 to port 1
 * and back, if librte_acl finds a rule that allows it, and drops the rest. It
 * keeps no state. The rules are a file of lines "SOURCE DESTINATION"; each
 * allows TCP and UDP to ports from 1024 on. After the rules come the MACs that
 * the frames for the two ports' peers get.
 *
 *	forward EAL-OPTIONS -- RULES MAC0 MAC1
 *
 * One loop on one core: receive a burst, classify all of it, send what is
 * allowed, free the rest.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>

#define BURST 64
#define RING 1024
#define MBUFS 16383

/* What a packet is looked up by, in network order. */
struct key {
	uint8_t proto;
	uint8_t pad[3];
	uint32_t src;
	uint32_t dst;
	uint16_t sport;
	uint16_t dport;
};

enum { PROTO, SRC, DST, SPORT, DPORT, FIELDS };

static const struct rte_acl_field_def fields[FIELDS] = {
	{ RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTO, 0, offsetof(struct key, proto) },
	{ RTE_ACL_FIELD_TYPE_MASK, 4, SRC, 1, offsetof(struct key, src) },
	{ RTE_ACL_FIELD_TYPE_MASK, 4, DST, 2, offsetof(struct key, dst) },
	{ RTE_ACL_FIELD_TYPE_RANGE, 2, SPORT, 3, offsetof(struct key, sport) },
	{ RTE_ACL_FIELD_TYPE_RANGE, 2, DPORT, 3, offsetof(struct key, dport) },
};

RTE_ACL_RULE_DEF(rule, FIELDS);

static volatile sig_atomic_t ended;

static void end(int sig)
{
	(void)sig;
	ended = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "forward: %s\n", what);
	exit(1);
}

static void add_rule(struct rte_acl_ctx *ctx, uint8_t proto, uint32_t src, uint32_t dst,
		     uint32_t n)
{
	struct rule r = { 0 };

	r.data.category_mask = 1;
	r.data.priority = RTE_ACL_MAX_PRIORITY - n;
	r.data.userdata = 1;
	r.field[PROTO].value.u8 = proto;
	r.field[PROTO].mask_range.u8 = 0xff;
	r.field[SRC].value.u32 = src;
	r.field[SRC].mask_range.u32 = 32;
	r.field[DST].value.u32 = dst;
	r.field[DST].mask_range.u32 = 32;
	r.field[SPORT].mask_range.u16 = 0xffff;
	r.field[DPORT].value.u16 = 1024;
	r.field[DPORT].mask_range.u16 = 0xffff;
	if (rte_acl_add_rules(ctx, (struct rte_acl_rule *)&r, 1))
		die("can't add a rule");
}

static struct rte_acl_ctx *read_rules(const char *path)
{
	struct rte_acl_config cfg = { .num_categories = 1, .num_fields = FIELDS };
	struct rte_acl_param param = { .name = "forward", .rule_size = RTE_ACL_RULE_SZ(FIELDS),
				       .max_rule_num = 1 << 16 };
	struct rte_acl_ctx *ctx = rte_acl_create(&param);
	FILE *f = fopen(path, "r");
	char src[32], dst[32];
	uint32_t n = 0;

	if (!ctx || !f)
		die("can't read the rules");
	while (fscanf(f, "%31s %31s", src, dst) == 2) {
		uint32_t s = ntohl(inet_addr(src)), d = ntohl(inet_addr(dst));

		add_rule(ctx, IPPROTO_TCP, s, d, n++);
		add_rule(ctx, IPPROTO_UDP, s, d, n++);
	}
	fclose(f);
	memcpy(cfg.defs, fields, sizeof(fields));
	if (rte_acl_build(ctx, &cfg))
		die("can't build the rules");
	return ctx;
}

static void open_port(uint16_t port, struct rte_mempool *pool)
{
	struct rte_eth_conf conf = { 0 };

	if (rte_eth_dev_configure(port, 1, 1, &conf) ||
	    rte_eth_rx_queue_setup(port, 0, RING, 0, NULL, pool) ||
	    rte_eth_tx_queue_setup(port, 0, RING, 0, NULL) || rte_eth_dev_start(port))
		die("can't start a port");
}

/* Fills a key; a packet that is none of IPv4's TCP or UDP matches no rule. */
static void parse(struct rte_mbuf *m, struct key *k)
{
	const struct rte_ipv4_hdr *ip =
		rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, RTE_ETHER_HDR_LEN);
	const struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
	const uint16_t *ports;
	uint32_t len = rte_pktmbuf_data_len(m);

	memset(k, 0, sizeof(*k));
	if (len < RTE_ETHER_HDR_LEN + sizeof(*ip) + 4 ||
	    eth->ether_type != RTE_BE16(RTE_ETHER_TYPE_IPV4) ||
	    len < RTE_ETHER_HDR_LEN + rte_ipv4_hdr_len(ip) + 4u ||
	    ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_OFFSET_MASK))
		return;
	ports = (const uint16_t *)((const uint8_t *)ip + rte_ipv4_hdr_len(ip));
	k->proto = ip->next_proto_id;
	k->src = ip->src_addr;
	k->dst = ip->dst_addr;
	k->sport = ports[0];
	k->dport = ports[1];
}

static void turn(struct rte_acl_ctx *ctx, uint16_t in, uint16_t out,
		 const struct rte_ether_addr *to)
{
	struct rte_mbuf *got[BURST], *send[BURST], *drop[BURST];
	struct key keys[BURST];
	const uint8_t *data[BURST];
	uint32_t verdict[BURST];
	uint16_t n = rte_eth_rx_burst(in, 0, got, BURST), ns = 0, nd = 0, sent;

	if (n == 0)
		return;
	for (uint16_t i = 0; i < n; i++) {
		parse(got[i], &keys[i]);
		data[i] = (const uint8_t *)&keys[i];
	}
	rte_acl_classify(ctx, data, verdict, n, 1);
	for (uint16_t i = 0; i < n; i++) {
		if (!verdict[i]) {
			drop[nd++] = got[i];
			continue;
		}
		rte_ether_addr_copy(to, &rte_pktmbuf_mtod(got[i], struct rte_ether_hdr *)->dst_addr);
		send[ns++] = got[i];
	}
	if (nd)
		rte_pktmbuf_free_bulk(drop, nd);
	sent = rte_eth_tx_burst(out, 0, send, ns);
	if (sent < ns)
		rte_pktmbuf_free_bulk(send + sent, ns - sent);
}

int main(int argc, char **argv)
{
	struct rte_ether_addr mac[2];
	struct rte_mempool *pool;
	struct rte_acl_ctx *ctx;
	int used = rte_eal_init(argc, argv);

	if (used < 0 || argc - used != 4)
		die("usage: forward EAL-OPTIONS -- RULES MAC0 MAC1");
	argv += used;
	if (rte_ether_unformat_addr(argv[2], &mac[0]) || rte_ether_unformat_addr(argv[3], &mac[1]))
		die("not a MAC");
	ctx = read_rules(argv[1]);
	pool = rte_pktmbuf_pool_create("mbufs", MBUFS, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	if (!pool)
		die("can't create the pool of mbufs");
	if (rte_eth_dev_count_avail() != 2)
		die("want two ports");
	for (uint16_t i = 0; i < 2; i++)
		open_port(i, pool);
	signal(SIGTERM, end);
	signal(SIGINT, end);
	fprintf(stderr, "forwarding\n");
	while (!ended) {
		turn(ctx, 0, 1, &mac[1]);
		turn(ctx, 1, 0, &mac[0]);
	}
	for (uint16_t i = 0; i < 2; i++) {
		rte_eth_dev_stop(i);
		rte_eth_dev_close(i);
	}
	return 0;
}
