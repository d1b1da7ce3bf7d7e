//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// func prefetch(mem *byte, d *Desc, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVQ mem+0(FP), AX
	MOVQ d+8(FP), BX
	MOVQ n+16(FP), CX
	TESTQ CX, CX
	JZ done
loop:
	MOVQ Desc_Addr(BX), DX
	PREFETCHT0 (AX)(DX*1)
	ADDQ $Desc__size, BX
	DECQ CX
	JNZ loop
done:
	RET
