//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// func prefetch(mem *byte, d *Desc, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVD mem+0(FP), R0
	MOVD d+8(FP), R1
	MOVD n+16(FP), R2
	CBZ R2, done
loop:
	MOVD Desc_Addr(R1), R3
	ADD R0, R3
	PRFM (R3), PLDL1KEEP
	ADD $Desc__size, R1
	SUB $1, R2
	CBNZ R2, loop
done:
	RET
