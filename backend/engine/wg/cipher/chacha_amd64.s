#include "textflag.h"

// ChaCha20 of sixteen messages side by side. Register Zi holds word i of the state (RFC
// 8439, section 2.3) of all sixteen, one in each 32-bit lane.

// One round: four quarter rounds, RFC 8439 section 2.1, step by step.
#define ADD4(a, b, c, d, e, f, g, h) \
	VPADDD e, a, a \
	VPADDD f, b, b \
	VPADDD g, c, c \
	VPADDD h, d, d

#define XOR4(n, a, b, c, d, e, f, g, h) \
	VPXORD e, a, a \
	VPXORD f, b, b \
	VPXORD g, c, c \
	VPXORD h, d, d \
	VPROLD n, a, a \
	VPROLD n, b, b \
	VPROLD n, c, c \
	VPROLD n, d, d

#define ROUND(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3) \
	ADD4(a0, a1, a2, a3, b0, b1, b2, b3) \
	XOR4($16, d0, d1, d2, d3, a0, a1, a2, a3) \
	ADD4(c0, c1, c2, c3, d0, d1, d2, d3) \
	XOR4($12, b0, b1, b2, b3, c0, c1, c2, c3) \
	ADD4(a0, a1, a2, a3, b0, b1, b2, b3) \
	XOR4($8, d0, d1, d2, d3, a0, a1, a2, a3) \
	ADD4(c0, c1, c2, c3, d0, d1, d2, d3) \
	XOR4($7, b0, b1, b2, b3, c0, c1, c2, c3)

// Transposition of 16 × 16 words. First, of four rows a…d, the columns of each 128-bit
// part: w, x, y, z come to hold columns 0…3 of every part.
#define COLUMNS(a, b, c, d, w, x, y, z) \
	VPUNPCKLDQ b, a, w \
	VPUNPCKHDQ b, a, x \
	VPUNPCKLDQ d, c, y \
	VPUNPCKHDQ d, c, z \
	VPUNPCKLQDQ y, w, a \
	VPUNPCKHQDQ y, w, b \
	VPUNPCKLQDQ z, x, c \
	VPUNPCKHQDQ z, x, d

// Then, of four registers, the 128-bit parts.
#define PARTS(a, b, c, d, w, x, y, z) \
	VSHUFI32X4 $0x44, b, a, w \
	VSHUFI32X4 $0xee, b, a, x \
	VSHUFI32X4 $0x44, d, c, y \
	VSHUFI32X4 $0xee, d, c, z \
	VSHUFI32X4 $0x88, y, w, a \
	VSHUFI32X4 $0xdd, y, w, b \
	VSHUFI32X4 $0x88, z, x, c \
	VSHUFI32X4 $0xdd, z, x, d

// Message i: 64 bytes, or as many as K1 says. DX counts lanes, BX is the offset.
#define WHOLE(i, z) \
	MOVQ (8*i)(DI), R8 \
	VPXORD (R8)(BX*1), z, z \
	VMOVDQU32 z, (R8)(BX*1) \
	CMPQ DX, $(i+1) \
	JEQ next

#define REST(i, z) \
	MOVQ (8*i)(DI), R8 \
	VMOVDQU8.Z (R8)(BX*1), K1, Z16 \
	VPXORD Z16, z, z \
	VMOVDQU8 z, K1, (R8)(BX*1) \
	CMPQ DX, $(i+1) \
	JEQ done

// func xorBlocks(s *state, at *[Lanes]unsafe.Pointer, n, size int)
TEXT ·xorBlocks(SB), NOSPLIT, $0-32
	MOVQ s+0(FP), SI
	MOVQ at+8(FP), DI
	MOVQ n+16(FP), DX
	MOVQ size+24(FP), CX
	XORQ BX, BX

block:
	VPBROADCASTD 0(SI), Z0
	VPBROADCASTD 4(SI), Z1
	VPBROADCASTD 8(SI), Z2
	VPBROADCASTD 12(SI), Z3
	VPBROADCASTD 16(SI), Z4
	VPBROADCASTD 20(SI), Z5
	VPBROADCASTD 24(SI), Z6
	VPBROADCASTD 28(SI), Z7
	VPBROADCASTD 32(SI), Z8
	VPBROADCASTD 36(SI), Z9
	VPBROADCASTD 40(SI), Z10
	VPBROADCASTD 44(SI), Z11
	VPBROADCASTD 48(SI), Z12
	VPBROADCASTD 52(SI), Z13
	VMOVDQU32 64(SI), Z14
	VMOVDQU32 128(SI), Z15
	MOVQ $10, AX

rounds:
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	ROUND(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14)
	DECQ AX
	JNZ rounds

	VPADDD.BCST 0(SI), Z0, Z0
	VPADDD.BCST 4(SI), Z1, Z1
	VPADDD.BCST 8(SI), Z2, Z2
	VPADDD.BCST 12(SI), Z3, Z3
	VPADDD.BCST 16(SI), Z4, Z4
	VPADDD.BCST 20(SI), Z5, Z5
	VPADDD.BCST 24(SI), Z6, Z6
	VPADDD.BCST 28(SI), Z7, Z7
	VPADDD.BCST 32(SI), Z8, Z8
	VPADDD.BCST 36(SI), Z9, Z9
	VPADDD.BCST 40(SI), Z10, Z10
	VPADDD.BCST 44(SI), Z11, Z11
	VPADDD.BCST 48(SI), Z12, Z12
	VPADDD.BCST 52(SI), Z13, Z13
	VPADDD 64(SI), Z14, Z14
	VPADDD 128(SI), Z15, Z15
	INCL 48(SI)

	COLUMNS(Z0, Z1, Z2, Z3, Z16, Z17, Z18, Z19)
	COLUMNS(Z4, Z5, Z6, Z7, Z20, Z21, Z22, Z23)
	COLUMNS(Z8, Z9, Z10, Z11, Z24, Z25, Z26, Z27)
	COLUMNS(Z12, Z13, Z14, Z15, Z28, Z29, Z30, Z31)
	PARTS(Z0, Z4, Z8, Z12, Z16, Z17, Z18, Z19)
	PARTS(Z1, Z5, Z9, Z13, Z20, Z21, Z22, Z23)
	PARTS(Z2, Z6, Z10, Z14, Z24, Z25, Z26, Z27)
	PARTS(Z3, Z7, Z11, Z15, Z28, Z29, Z30, Z31)

	CMPQ CX, $64
	JLT rest
	WHOLE(0, Z0)
	WHOLE(1, Z1)
	WHOLE(2, Z2)
	WHOLE(3, Z3)
	WHOLE(4, Z4)
	WHOLE(5, Z5)
	WHOLE(6, Z6)
	WHOLE(7, Z7)
	WHOLE(8, Z8)
	WHOLE(9, Z9)
	WHOLE(10, Z10)
	WHOLE(11, Z11)
	WHOLE(12, Z12)
	WHOLE(13, Z13)
	WHOLE(14, Z14)
	WHOLE(15, Z15)

next:
	ADDQ $64, BX
	SUBQ $64, CX
	JG block
	JMP done

rest:
	MOVQ $-1, AX
	SHLQ CX, AX
	NOTQ AX
	KMOVQ AX, K1
	REST(0, Z0)
	REST(1, Z1)
	REST(2, Z2)
	REST(3, Z3)
	REST(4, Z4)
	REST(5, Z5)
	REST(6, Z6)
	REST(7, Z7)
	REST(8, Z8)
	REST(9, Z9)
	REST(10, Z10)
	REST(11, Z11)
	REST(12, Z12)
	REST(13, Z13)
	REST(14, Z14)
	REST(15, Z15)

done:
	VZEROUPPER
	RET
