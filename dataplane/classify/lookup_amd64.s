//go:build !race && !purego

#include "funcdata.h"
#include "go_asm.h"
#include "textflag.h"

// Registers of the first loop of both functions:
//
//	SI  query            R8  nodes        R12 last level of the ports' trie
//	DI  end of scratch   R9  root         R13 records
//	CX  index, up to 0   R10 leaf         R14 size of a record
//	                     R11 portNodes    R15 pages of the first record
//
// scratch has for each query where its profile's number is, and where its cell
// is in the first profile of the row. rows is the number of records.

#define LOAD \
	MOVQ t+0(FP), AX \
	MOVQ q+8(FP), SI \
	MOVQ n+24(FP), CX \
	LEAQ scratch-512(SP), DI \
	LEAQ (DI)(CX*8), DI \
	NEGQ CX \
	MOVQ tables_rows(AX), DX \
	MOVQ DX, rows-520(SP) \
	MOVQ tables_nodes(AX), R8 \
	MOVQ tables_root(AX), R9 \
	MOVQ tables_leaf(AX), R10 \
	MOVQ tables_portNodes(AX), R11 \
	MOVQ tables_portLeaf(AX), R12 \
	MOVQ tables_records(AX), R13 \
	MOVQ tables_stride(AX), R14 \
	MOVQ tables_pages(AX), R15

// CLASS4 finds the class of an IPv4 address, in AX.
#define CLASS4 \
	MOVL (Query_Remote+const_addrLo)(SI), AX \
	MOVBLZX AL, DX \
	MOVBLZX AH, BP \
	SHRL $16, AX \
	MOVBLZX AH, BX \
	MOVBLZX AL, AX \
	ADDL (R9)(BX*4), AX \
	ADDL (R8)(AX*4), BP \
	ADDL (R8)(BP*4), DX \
	MOVWLZX (R10)(DX*2), AX

// LOCATE finds the page of the class in AX, and the cell.
#define LOCATE \
	MOVL Query_Row(SI), BX \
	CMPL BX, rows-520(SP) \
	SBBL BP, BP \
	ANDL BP, BX \
	IMULL R14, BX \
	MOVL AX, DX \
	SHRL $6, DX \
	ANDL $63, AX \
	LEAQ (BX)(DX*2), DX \
	MOVWLZX (R15)(DX*1), DX \
	SHLL $6, DX \
	ORL DX, AX \
	MOVL AX, (DI)(CX*8) \
	MOVL Query_Port(SI), AX \
	MOVBLZX AL, DX \
	MOVBLZX AH, BP \
	SHRL $16, AX \
	MOVBLZX AL, AX \
	ADDL (R11)(AX*4), BP \
	ADDL (R11)(BP*4), DX \
	MOVBLZX (R12)(DX*1), AX \
	ADDL BX, AX \
	MOVBLZX const_localAt(R13)(AX*1), AX \
	ADDL (R13)(BX*1), AX \
	MOVL AX, 4(DI)(CX*8)

// JUDGE reads the verdicts.
#define JUDGE \
	MOVQ t+0(FP), AX \
	MOVQ n+24(FP), CX \
	MOVQ out+16(FP), R9 \
	LEAQ (R9)(CX*4), R9 \
	NEGQ CX \
	MOVQ tables_cells(AX), R8 \
	MOVQ tables_profile16(AX), SI \
	TESTQ SI, SI \
	JNZ wide \
	MOVQ tables_profile8(AX), SI \
narrow: \
	MOVL (DI)(CX*8), AX \
	MOVL 4(DI)(CX*8), DX \
	MOVBLZX (SI)(AX*1), AX \
	LEAQ (DX)(AX*8), AX \
	MOVL (R8)(AX*4), AX \
	MOVL AX, (R9)(CX*4) \
	INCQ CX \
	JNZ narrow \
	RET \
wide: \
	MOVL (DI)(CX*8), AX \
	MOVL 4(DI)(CX*8), DX \
	MOVWLZX (SI)(AX*2), AX \
	LEAQ (DX)(AX*8), AX \
	MOVL (R8)(AX*4), AX \
	MOVL AX, (R9)(CX*4) \
	INCQ CX \
	JNZ wide \
	RET

// func classify4(t *tables, q *Query, out *Verdict, n int) (others uint64)
TEXT ·classify4(SB), 0, $520-40
	NO_LOCAL_POINTERS
	LOAD
	PXOR X0, X0
	MOVQ $const_v4Mapped, AX
	MOVQ AX, X2
	PSLLO $8, X2
loop:
	MOVUPS Query_Remote(SI), X1 // Hi and Lo
	PXOR X2, X1
	POR X1, X0
	CLASS4
	LOCATE
	ADDQ $Query__size, SI
	INCQ CX
	JNZ loop
	MOVQ X0, AX
	PSRLO $8, X0
	MOVQ X0, DX
	SHRQ $32, DX
	ORQ DX, AX
	MOVQ AX, others+32(FP)
	JUDGE

// func classifyBy(t *tables, q *Query, out *Verdict, n int, class *uint32)
TEXT ·classifyBy(SB), 0, $520-40
	NO_LOCAL_POINTERS
	LOAD
	MOVQ class+32(FP), R8
	MOVQ CX, AX
	SHLQ $2, AX
	SUBQ AX, R8
loop:
	MOVL (R8)(CX*4), AX
	LOCATE
	ADDQ $Query__size, SI
	INCQ CX
	JNZ loop
	JUDGE

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
//	                     R11 high         R15 end of missed
//
// X5 is the mask of what is compared, BX the address without its low bits.
// missed has the indices of queries whose address is in no group.
TEXT ·classes6(SB), 0, $280-40
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
	LEAQ missed-256(SP), R15
	MOVQ R14, others-264(SP)
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
	CMPQ AX, $1
	ADCQ R14, others-264(SP)
	ANDQ R11, BX
	XORQ R12, AX
	MOVQ BX, DX
	XORQ R13, DX
	MULQ DX
	XORQ DX, AX // the hash
	MOVQ AX, DX
	SHRQ $32, DX
	ANDQ R10, DX
	MOVQ (R8)(DX*8), DX
	MOVL AX, BP
	SHRL $10, BP
	ANDL $(const_slots-1), AX
	ANDL $(const_slots-1), BP
	LEAQ (AX)(AX*2), AX
	LEAQ (BP)(BP*2), BP
	LEAQ (DX)(AX*8), AX
	LEAQ (DX)(BP*8), BP
	MOVUPS slot_hi(AX), X1
	MOVUPS slot_hi(BP), X2
	PCMPEQL X0, X1
	PCMPEQL X0, X2
	MOVL slot_first(AX), AX
	MOVMSKPS X1, DX
	CMPL DX, $15
	CMOVLNE R14, AX
	MOVL slot_first(BP), BP
	MOVMSKPS X2, DX
	CMPL DX, $15
	CMOVLNE R14, BP
	ORL BP, AX // first, or 0
	MOVQ (Query_Remote+const_addrLo)(SI), DX
	XORQ BX, DX
	ADDL AX, DX
	MOVWLZX (R9)(DX*2), DX
	MOVL DX, (DI)(CX*4)
	MOVL CX, (R15)
	LEAQ 4(R15), DX
	TESTL AX, AX
	CMOVQEQ DX, R15
	ADDQ $Query__size, SI
	INCQ CX
	JNZ loop

	// SI is the end of the queries: a missed index leads back to one.
	MOVQ others-264(SP), AX
	MOVQ AX, others+32(FP)
	LEAQ missed-256(SP), R8
	CMPQ R8, R15
	JEQ done
	MOVQ t+0(FP), AX
	MOVQ tables_nodes6(AX), R9
	MOVQ tables_root6(AX), R10
	MOVQ tables_upper(AX), R11
	MOVQ tables_lower(AX), R12
miss:
	MOVLQSX (R8), CX
	LEAQ (CX)(CX*2), DX
	LEAQ (SI)(DX*8), DX // the query
	MOVL R10, AX
	LEAQ (Query_Remote+7)(DX), BX // its address's first byte
	MOVQ R11, R13
	TESTQ R13, R13
	JZ found
upper:
	WALK
	JNZ upper
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
	CMPQ R8, R15
	JNE miss
done:
	RET
