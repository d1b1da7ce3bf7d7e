package xdpprog

import (
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// haveKernCtx reports whether programs can look at the kernel's own sk_buff: it has
// types (CONFIG_DEBUG_INFO_BTF) and bpf_cast_to_kern_ctx, which came with Linux 6.2.
var haveKernCtx = sync.OnceValue(func() bool {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var f *btf.Func
	return kernel.TypeByName("bpf_cast_to_kern_ctx", &f) == nil
})

// forgetKernCtx takes out of a program what needs the kernel's types. It is never
// reached then, since the constant that leads to it is not set.
func forgetKernCtx(p *ebpf.ProgramSpec) {
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		switch {
		case ins.IsKfuncCall():
			*ins = asm.Mov.Imm(asm.R0, 0).WithSymbol(ins.Symbol()).WithSource(ins.Source())
		case btf.CORERelocationMetadata(ins) != nil:
			*ins = asm.Instruction{OpCode: ins.OpCode, Dst: ins.Dst, Src: ins.Src, Offset: ins.Offset, Constant: ins.Constant}.
				WithSymbol(ins.Symbol()).WithReference(ins.Reference()).WithSource(ins.Source())
		}
	}
}
