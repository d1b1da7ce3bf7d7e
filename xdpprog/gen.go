package xdpprog

//go:generate go tool bpf2go -tags linux -target bpfel -output-stem sluice sluice bpf/sluice.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
