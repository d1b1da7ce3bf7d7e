package scenario

import "regexp"

// stage is a part of the path of a packet, or of what surrounds it, by the
// symbols or the files that a sample may be in.
type stage struct {
	name string
	file *regexp.Regexp // nil: any
	in   *regexp.Regexp // symbols; nil: any
}

func (s *stage) matches(symbol, file string) bool {
	return (s.file == nil || s.file.MatchString(file)) && (s.in == nil || s.in.MatchString(symbol))
}

func symbols(pattern string) *regexp.Regexp { return regexp.MustCompile("^(" + pattern + ")") }
func files(pattern string) *regexp.Regexp   { return regexp.MustCompile(pattern) }

// What is no stage of a packet's path.
const (
	stageIdle   = "idle"
	stageOthers = "other processes"
	stagePerf   = "the profiler"
	stageRest   = "rest"
)

// stages sort samples; the first that matches counts. A function of the kernel
// is where its name says that it belongs: what it was called for is not known.
var stages = []stage{
	{stageIdle, nil, symbols(`default_idle|pv_native_safe_halt|native_safe_halt|acpi_idle|acpi_safe_halt|cpu_startup_entry|do_idle|mwait_idle|intel_idle|cpuidle_`)},
	{"Go: parser", nil, regexp.MustCompile(`sluice/dataplane/packet\.`)},
	{"Go: flow table", nil, regexp.MustCompile(`sluice/dataplane/flow\.`)},
	{"Go: classifier", nil, regexp.MustCompile(`sluice/dataplane/classify\.`)},
	{"Go: rings", nil, regexp.MustCompile(`sluice/dataplane/xsk\.`)},
	{"Go: events", nil, regexp.MustCompile(`sluice/(dataplane/event|control/observe)`)},
	{"Go: worker", nil, regexp.MustCompile(`sluice/(dataplane|xdpprog)[./]`)},
	{"generator and sink", nil, regexp.MustCompile(`sluice/bench/|^bpf_prog_[0-9a-f]+_bench_|^(packet_snd|packet_sendmsg|packet_xmit|packet_alloc_skb|packet_parse_headers|packet_pick|tpacket)`)},
	{"asavie/xdp", nil, regexp.MustCompile(`asavie/xdp`)},
	{"Go: rest of the program", nil, regexp.MustCompile(`sluice/|/ebpf|^k8s\.io/|^google\.golang|^github\.com/`)},
	{"Go: runtime", files(`sluice|\(deleted\)|/proc/`), symbols(`runtime[./]|gcWrite|memmove|memclr|memeqbody|aeshash|syscall\.|internal/|sync[./]|time\.|golang\.org/x/sys`)},
	{"DPDK: rte_acl", files(`librte_acl`), nil},
	{"DPDK: AF_XDP driver", files(`librte_net_af_xdp|libxdp|libbpf`), nil},
	{"DPDK: forwarder and rest", files(`librte_|memfd:`), nil},
	{"Open vSwitch", files(`ovs-|libopenvswitch|libofproto|ovsdb`), nil},
	{"Sluice's BPF programs", nil, symbols(`bpf_prog_[0-9a-f]+_(divert|deliver|steer)`)},
	{"BPF: maps, helpers, hooks", nil, symbols(`bpf_|__bpf|___bpf|htab_|__htab|lookup_nulls|lookup_elem_raw|array_map|percpu_array|dev_map|xsk_map|__xsk_map|cls_bpf|tcx_|tc_run|sch_handle|skb_do_redirect|__dev_flush|__cpu_map|xdp_do_|xdp_master|bpf_xdp`)},
	{"AF_XDP in the kernel", nil, symbols(`xsk_|__xsk|xskq_|xdp_|__xdp|xp_|__xp`)},
	{"netfilter and conntrack", nil, symbols(`nf_|__nf|nft_|ipt_|ip6t_|xt_|set_match|ip_set|hash_ip|nfqnl|nfqueue|nfnetlink|ct_|hash_conntrack|udp_packet|tcp_in_window|nfct_|bitmap_ip`)},
	{"copies and checksums", nil, symbols(`_?copy_|__copy|__pi_|memcpy|__memcpy|memmove|__memmove|rep_movs|skb_copy|csum_|__skb_check|do_csum|memset|__memset|clear_page|_copy_from|fault_in|__check_object|check_heap|check_stack|simple_copy`)},
	{"memory", nil, symbols(`kmem_|__kmem|kmalloc|__kmalloc|kfree|__alloc|alloc_|__free|free_|page_|__page|slab|__slab|___slab|put_page|get_page|put_cpu_partial|get_partial|sock_wfree|sock_alloc|napi_alloc|__napi_alloc|skb_free|skb_release|consume_skb|kfree_skb|sk_skb_reason|__build_skb|build_skb|napi_build|rmqueue|get_any_partial|refill_|drain_stock|obj_cgroup|mem_cgroup|__mod_|mod_memcg|memcg_|lru_|folio_|handle_mm|__handle_mm|exc_page|do_user_addr|unmap_|mas_|vma_|lock_vma|mt_|get_obj|sheaf|__pcs|alloc_from_pcs|free_to_pcs`)},
	{"veth, queues, softirq", nil, symbols(`veth_|napi_|__napi|net_rx|net_tx|__netif|netif_|process_backlog|dev_|__dev|enqueue_to|handle_softirqs|__do_softirq|do_softirq|__local_bh|local_bh|run_ksoftirqd|eth_type|sch_|pfifo|noqueue|qdisc|__qdisc|validate_xmit|ptr_ring|gro_|dev_gro|is_skb_forwardable|dst_|__raise_softirq|raise_softirq|skb_defer|skb_attempt|sk_backlog|net_timestamp|ktime_get_real`)},
	{"IP stack", nil, symbols(`ip_|__ip|ip6_|ip6t|ipv6_|__ipv6|icmp|fib_|__fib|fib6|rt_|rt6|ip6|neigh|__neigh|udp_|__udp|udpv6|tcp_|__tcp|tcpv6|inet_|__inet|inet6|skb_|__skb|sock_|__sock|sk_|__sk_|raw_(local|v6)|arp_|xfrm|pskb|ipv4_|lock_sock|release_sock|__lock_sock|secure_|siphash`)},
	{"system calls", nil, symbols(`do_syscall|entry_|syscall_|__x64|__do_sys|__se_sys|__sys|___sys|sys_|do_sys_poll|do_poll|poll_|__pollwait|import_|fdget|fput|__fget|fget|sockfd|move_addr|security_|apparmor|aa_|sendmmsg|vfs_|ksys|new_sync|rw_verify|ep_|do_epoll|__ep|ppoll|x64_sys|copyout|iov_|__import`)},
	{"scheduler, locks and timers", nil, symbols(`sched|__sched|schedule|__schedule|try_to_wake|ttwu|pick_|__pick|dequeue|enqueue|update_|__update|set_next|put_prev|finish_task|_raw_|raw_spin|queued_|native_|pv_|mutex|futex|__futex|hrtimer|__hrtimer|timer|tick_|ktime|clock|read_tsc|rcu_|__rcu|smp_|__smp|irq|__irq|asm_|sysvec|migrate_|preempt_|__switch|switch_|context_switch|select_|wake|__wake|autoremove|default_wake|available_idle|cpu|resched|__resched|nohz|reweight|place_entity|avg_vruntime|vruntime|check_preempt|wakeup_preempt|prepare_task|do_sched|worker_|process_one|try_charge|do_nanosleep|entity_|__calc|_find_|nsecs|common_nsleep|perf_|__perf|event_sched|ctx_sched|x2apic|apic|ret_from|__list_|list_|rb_|__rb|timerqueue|pvclock|kvm_|lapic`)},
}

// stageOf is where a sample belongs.
func stageOf(symbol, file string) string {
	for i := range stages {
		if stages[i].matches(symbol, file) {
			return stages[i].name
		}
	}
	return stageRest
}
