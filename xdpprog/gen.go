package xdpprog

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel -output-stem sluice sluice bpf/sluice.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
