/* SPDX-License-Identifier: GPL-2.0-only */
/* Instructions that a kernel has and compilers do not write. */

    .text
    .irp insn, lgdt, sidt, invlpg, fxsave64, xsave64, xsaveopt64, xrstors64, xsavec, clflush, clflushopt, clwb, \
      "lock incl", "lock cmpxchg16b", vmptrld, vmclear, prefetchnta, prefetchw, ldmxcsr, fnstenv, fldt, \
      pushq, popq, nopw, "call *", "jmp *", "notrack jmp *", "lcall *", "ljmp *", verw, ltr, "gs incq"
    \insn (%rax)
    \insn 8(%rsp)
    \insn 0x1000(%r13,%r12,4)
    \insn table(%rip)
    \insn 0x1000
    .endr
    swapgs ; clac ; stac ; cli ; sti ; hlt ; cpuid ; rdmsr ; wrmsr ; rdtscp ; rdpmc ; xgetbv ; xsetbv ; wbinvd
    sysretq ; syscall ; sysenter ; iretq ; lretq ; lretq $8 ; ret $16 ; enter $0x1234, $5 ; leave ; int $0x80
    endbr64 ; pause ; lfence ; mfence ; sfence ; monitor ; mwait ; vmcall ; vmmcall ; vmlaunch ; vmrun ; vmsave
    mov %cr3, %rax ; mov %rax, %cr4 ; mov %cr8, %r9 ; mov %db7, %rdx ; mov %rax, %fs ; mov %gs, %eax ; pushfq
    rdpid %rax ; rdrand %r8 ; rdseed %eax ; invpcid (%rdi), %rsi ; rdfsbase %rax ; wrgsbase %r11 ; rdpkru
    crc32b %al, %ecx ; crc32w (%rsi), %ecx ; crc32q table(%rip), %rax ; movbe 4(%rdi), %r10 ; adcx %rax, %rbx
    xbegin 1f ; xend ; xabort $3 ; 1: ud2 ; ud1 %esp, %ecx ; ud1 (%edx), %rdi ; ud0 (%rax), %eax ; serialize
    movabs $0x1122334455667788, %r11 ; movabs 0x1122334455667788, %eax ; movabs %rax, 0x1122334455667788
    mov $0x1234, %ax ; add $0x1234, %cx ; add $0x1234, %ax ; test $0x1234, %dx ; push $0x12345 ; pushw $0x1234
    imul $0x1234, %r8w, %r9w ; testb $1, table(%rip) ; testq $0x11223344, %gs:8(%rax) ; notw (%rax) ; push $1
    rep movsb ; repne scasb ; rep stosq ; lodsw ; insb ; outsl ; in $0x60, %al ; out %eax, %dx ; xlat ; idivq (%rbp)
    mov %gs:0x28, %rax ; mov %fs:table(%rip), %eax ; mov %cs:(%rax), %bx ; mov (%eax), %ecx ; lea table(%eip), %ecx
    btl $5, table(%rip) ; btsq %rax, (%rcx) ; shld $3, %rax, (%rcx) ; shrd %cl, %r8, %r9 ; cmpxchg8b (%rsi)
2:  jrcxz 2b ; jecxz 2b ; loop 2b ; loopne 2b ; jo 2b ; jmp 2b ; jmp outside ; jne outside ; call outside ; jo 1b
    notrack jmp *%rax ; cs call outside ; jne,pt 2b ; .byte 0x2e, 0x2e, 0x2e ; call *%r11 ; bswap %r12 ; popfq
    fldcw table(%rip) ; fnstsw %ax ; fninit ; finit ; fnclex ; fxch ; fcomip %st(3) ; emms ; movntiq %rax, (%rcx)
    pshufw $3, %mm1, %mm2 ; palignr $3, table(%rip), %xmm9 ; pclmulqdq $0x11, %xmm1, %xmm2
    sha1rnds4 $2, %xmm1, %xmm2 ; sha256msg1 %xmm1, %xmm2 ; pinsrq $1, %rax, %xmm1 ; pextrw $2, %xmm3, %eax
    vzeroupper ; vpxor table(%rip), %ymm9, %ymm10 ; vpshufb (%rax,%rcx,8), %ymm1, %ymm2 ; andn (%rcx), %rbx, %r9
    vpermq $0x1b, table(%rip), %ymm3 ; vgatherdpd %ymm1, 8(,%xmm2,8), %ymm3 ; rorx $5, table(%rip), %rax
    vpblendvb %ymm4, (%rax), %ymm1, %ymm2 ; aeskeygenassist $1, %xmm1, %xmm2 ; vprord $7, %zmm1, %zmm2
    vpternlogd $0x96, table(%rip), %zmm16, %zmm31 ; vmovdqu64 0x40(%rsi), %zmm1{%k1}{z} ; kmovq table(%rip), %k1
    vmovdqa32 0x12345(%rsp), %zmm17 ; vpermi2d (%rax){1to16}, %zmm1, %zmm2 ; kshiftrq $3, %k1, %k2
    vgf2p8affineqb $3, table(%rip), %zmm1, %zmm2 ; vpcmpuq $2, (%rcx), %zmm3, %k2 ; vaddph %zmm1, %zmm2, %zmm3
    .rept 20
    nopw 0x200(%rax,%rax,1) ; .p2align 4 ; ret
    .endr
    .nops 30 ; .nops 13

    .bss
table:
    .skip 64
