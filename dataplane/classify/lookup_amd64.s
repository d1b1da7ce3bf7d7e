//go:build !race && !purego

#include "funcdata.h"
#include "go_asm.h"
#include "textflag.h"

// Stages are loops of their own, because what counts is how many lookups are
// under way at a time: a loop of few instructions has more of them in flight
// while each waits for its loads, one behind the other. A loop takes four
// queries a turn and then what is left one by one.

// CLASS4 finds the class of the IPv4 address of the k-th query from SI on.
#define CLASS4(k) \
	MOVUPS (Query_Remote+k*Query__size)(SI), X1 \ // Hi and Lo
	PXOR X2, X1 \
	POR X1, X0 \
	MOVL (Query_Remote+const_addrLo+k*Query__size)(SI), AX \
	MOVBLZX AL, DX \
	MOVBLZX AH, BP \
	SHRL $16, AX \
	MOVBLZX AH, BX \
	MOVBLZX AL, AX \
	ADDL (R9)(BX*4), AX \
	ADDL (R8)(AX*4), BP \
	ADDL (R8)(BP*4), DX \
	MOVWLZX (R10)(DX*2), AX \
	MOVL AX, (4*k)(DI)(CX*4)

// LOCATE finds where the number of a query's profile is, and where its cell is
// in the first profile of the row, and puts both into scratch. Behind the
// port's two bytes a query has the protocol.
#define LOCATE(k, unknown) \
	MOVL (Query_Row+k*Query__size)(SI), BX \
	CMPL BX, R9 \
	JCC unknown \
	LOCATED(k)

#define LOCATED(k) \
	IMULL R14, BX \
	MOVL (4*k)(R8)(CX*4), AX \
	MOVL AX, DX \
	SHRL $6, DX \
	ANDL $63, AX \
	LEAQ (BX)(DX*2), DX \
	MOVWLZX (R15)(DX*1), DX \
	SHLL $6, DX \
	ORL DX, AX \
	MOVL AX, (8*k)(DI)(CX*8) \
	MOVWLZX (Query_Port+1+k*Query__size)(SI), AX \
	MOVBLZX (Query_Port+k*Query__size)(SI), DX \
	ADDL (R11)(AX*4), DX \
	MOVBLZX (R12)(DX*1), AX \
	ADDL BX, AX \
	MOVBLZX const_localAt(R13)(AX*1), AX \
	ADDL (R13)(BX*1), AX \
	MOVL AX, (8*k+4)(DI)(CX*8)

// JUDGE reads a verdict, by profiles of 8 or 16 bits (LOAD, size).
#define JUDGE(k, LOAD, size) \
	MOVL (8*k)(DI)(CX*8), AX \
	MOVL (8*k+4)(DI)(CX*8), DX \
	LOAD (SI)(AX*size), AX \
	LEAQ (DX)(AX*8), AX \
	MOVL (R8)(AX*4), AX \
	MOVL AX, (4*k)(R9)(CX*4)

// FINISH is what follows the class, for all queries. R8 is the end of classes.
//
//	SI  query            R11 portNodes    R14 size of a record
//	DI  end of scratch   R12 port8        R15 pages of the first record
//	CX  index, up to 0   R13 records      R9  their number
#define FINISH \
	MOVQ t+0(FP), AX \
	MOVQ q+8(FP), SI \
	MOVQ n+24(FP), CX \
	LEAQ scratch-512(SP), DI \
	LEAQ (DI)(CX*8), DI \
	NEGQ CX \
	MOVQ tables_rows(AX), R9 \
	MOVQ tables_portNodes(AX), R11 \
	MOVQ tables_portLeaf(AX), R12 \
	MOVQ tables_records(AX), R13 \
	MOVQ tables_stride(AX), R14 \
	MOVQ tables_pages(AX), R15 \
	CMPQ CX, $-4 \
	JGT locate1 \
locate4: \
	LOCATE(0, locate1) \
	LOCATE(1, locate1) \
	LOCATE(2, locate1) \
	LOCATE(3, locate1) \
	ADDQ $(4*Query__size), SI \
	ADDQ $4, CX \
	CMPQ CX, $-4 \
	JLE locate4 \
	TESTQ CX, CX \
	JZ located \
locate1: \ // also from the first of four queries with a row that isn't known
	MOVL Query_Row(SI), BX \
	CMPL BX, R9 \
	SBBL AX, AX \
	ANDL AX, BX \ // or DenyRow
	LOCATED(0) \
	ADDQ $Query__size, SI \
	INCQ CX \
	JNZ locate1 \
located: \
	MOVQ t+0(FP), AX \
	MOVQ n+24(FP), CX \
	MOVQ out+16(FP), R9 \
	LEAQ (R9)(CX*4), R9 \
	NEGQ CX \
	MOVQ tables_cells(AX), R8 \
	MOVQ tables_profile16(AX), SI \
	TESTQ SI, SI \
	JNZ wide1 \
	MOVQ tables_profile8(AX), SI \
	CMPQ CX, $-4 \
	JGT judge1 \
judge4: \
	JUDGE(0, MOVBLZX, 1) \
	JUDGE(1, MOVBLZX, 1) \
	JUDGE(2, MOVBLZX, 1) \
	JUDGE(3, MOVBLZX, 1) \
	ADDQ $4, CX \
	CMPQ CX, $-4 \
	JLE judge4 \
	TESTQ CX, CX \
	JZ judged \
judge1: \
	JUDGE(0, MOVBLZX, 1) \
	INCQ CX \
	JNZ judge1 \
judged: \
	RET \
wide1: \
	JUDGE(0, MOVWLZX, 2) \
	INCQ CX \
	JNZ wide1 \
	RET

// func classify4(t *tables, q *Query, out *Verdict, n int) (others uint64)
//
//	SI  query            R8  nodes
//	DI  end of class     R9  root
//	CX  index, up to 0   R10 leaf
TEXT ·classify4(SB), 0, $768-40
	NO_LOCAL_POINTERS
	MOVQ t+0(FP), AX
	MOVQ q+8(FP), SI
	MOVQ n+24(FP), CX
	LEAQ class-768(SP), DI
	LEAQ (DI)(CX*4), DI
	NEGQ CX
	MOVQ tables_nodes(AX), R8
	MOVQ tables_root(AX), R9
	MOVQ tables_leaf(AX), R10
	PXOR X0, X0
	MOVQ $const_v4Mapped, AX
	MOVQ AX, X2
	PSLLO $8, X2
	CMPQ CX, $-4
	JGT class1
class4:
	CLASS4(0)
	CLASS4(1)
	CLASS4(2)
	CLASS4(3)
	ADDQ $(4*Query__size), SI
	ADDQ $4, CX
	CMPQ CX, $-4
	JLE class4
	TESTQ CX, CX
	JZ classes
class1:
	CLASS4(0)
	ADDQ $Query__size, SI
	INCQ CX
	JNZ class1
classes:
	MOVQ X0, AX
	PSRLO $8, X0
	MOVQ X0, DX
	SHRQ $32, DX
	ORQ DX, AX
	MOVQ AX, others+32(FP)
	MOVQ DI, R8
	FINISH

// func classifyBy(t *tables, q *Query, out *Verdict, n int, class *uint32)
TEXT ·classifyBy(SB), 0, $512-40
	NO_LOCAL_POINTERS
	MOVQ class+32(FP), R8
	MOVQ n+24(FP), CX
	LEAQ (R8)(CX*4), R8
	FINISH

// WALK goes from the entry in AX one level down, by the byte at BX.
#define WALK \
	MOVBLZX (BX), BP \
	SHRL $1, AX \
	SBBL R14, R14 \
	ANDL BP, R14 \
	ADDL R14, AX \
	MOVL (R9)(AX*4), AX \
	DECQ BX \
	DECQ R13

// func classes6(t *tables, q *Query, n int, class *uint32) (others uint64)
//
//	SI  query            R8  parts        R12 seed0
//	DI  end of class     R9  groups       R13 seed1
//	CX  index, up to 0   R10 lastPart     R14 0
//	                     R11 high         R15 number of the missed
//
// X5 is the mask of what is compared, BX the lower half of it. missed has the
// indices of queries whose address is in no group.
TEXT ·classes6(SB), 0, $272-40
	NO_LOCAL_POINTERS
	MOVQ t+0(FP), AX
	MOVQ q+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ class+24(FP), DI
	LEAQ (DI)(CX*4), DI
	NEGQ CX
	MOVQ tables_parts(AX), R8
	MOVQ tables_groups(AX), R9
	MOVQ tables_lastPart(AX), R10
	MOVQ tables_high(AX), R11
	MOVQ tables_seed0(AX), R12
	MOVQ tables_seed1(AX), R13
	XORL R14, R14
	XORL R15, R15
	MOVQ R11, X5
	PSLLO $8, X5
	PCMPEQL X4, X4
	PSRLO $8, X4
	POR X4, X5
loop:
	MOVUPS Query_Remote(SI), X0
	PAND X5, X0
	MOVQ Query_Remote(SI), AX
	MOVQ (Query_Remote+const_addrLo)(SI), BX
	ANDQ R11, BX
	XORQ R12, AX
	MOVQ BX, DX
	XORQ R13, DX
	MULQ DX
	XORQ DX, AX // the hash
	MOVQ AX, DX
	SHRQ $32, DX
	ANDQ R10, DX
	MOVQ (R8)(DX*8), DX // the part
	MOVL AX, BP
	SHRL $(const_secondSlot-const_firstSlot), BP
	ANDL $((const_slots-1)<<const_firstSlot), AX
	ANDL $((const_slots-1)<<const_firstSlot), BP
	MOVUPS slot_hi(DX)(AX*1), X1
	MOVUPS slot_hi(DX)(BP*1), X2
	PCMPEQL X0, X1
	PCMPEQL X0, X2
	MOVL slot_first(DX)(AX*1), AX
	MOVL slot_first(DX)(BP*1), BP
	MOVMSKPS X1, DX
	CMPL DX, $15
	CMOVLNE R14, AX
	MOVMSKPS X2, DX
	CMPL DX, $15
	CMOVLNE R14, BP
	ORL BP, AX // first, or 0
	XORQ (Query_Remote+const_addrLo)(SI), BX
	ADDL AX, BX
	MOVWLZX (R9)(BX*2), DX
	MOVL DX, (DI)(CX*4)
	MOVL CX, missed-256(SP)(R15*4)
	CMPL AX, $1
	ADCL $0, R15
	ADDQ $Query__size, SI
	INCQ CX
	JNZ loop

	// SI is the end of the queries: a missed index leads back to one. IPv4
	// addresses are among the missed ones: R15 counts them.
	MOVQ $0, others+32(FP)
	TESTL R15, R15
	JZ done
	LEAQ missed-256(SP), R8
	LEAQ (R8)(R15*4), R15
	MOVQ R15, end-264(SP)
	XORL R15, R15
	MOVQ t+0(FP), AX
	MOVQ tables_nodes6(AX), R9
	MOVQ tables_upper(AX), R11
	MOVQ tables_lower(AX), R12
miss:
	MOVLQSX (R8), CX
	LEAQ (CX)(CX*2), DX
	LEAQ (SI)(DX*8), DX // the query
	MOVL (Query_Remote+const_addrLo+4)(DX), AX
	XORL $(const_v4Mapped>>32), AX
	MOVQ Query_Remote(DX), BX
	ORQ BX, AX
	CMPQ AX, $1
	ADCQ $0, R15
	MOVQ t+0(FP), R10
	XORQ (tables_stem+stem_prefix)(R10), BX
	MOVL (tables_stem+stem_outside)(R10), AX
	TESTQ BX, (tables_stem+stem_mask)(R10)
	CMOVLEQ (tables_stem+stem_inside)(R10), AX
	LEAQ (Query_Remote+7)(DX), BX
	SUBQ (tables_stem+stem_levels)(R10), BX // its address's first byte behind the stem
	MOVQ R11, R13
	TESTQ R13, R13
	JZ upper0
upper:
	WALK
	JNZ upper
upper0:
	LEAQ (Query_Remote+const_addrLo+7)(DX), BX
	MOVQ R12, R13
	TESTQ R13, R13
	JZ found
lower:
	WALK
	JNZ lower
found:
	SHRL $1, AX
	MOVL AX, (DI)(CX*4)
	ADDQ $4, R8
	CMPQ R8, end-264(SP)
	JNE miss
	MOVQ R15, others+32(FP)
done:
	RET
