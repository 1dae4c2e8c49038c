//! System calls in the registers of x86_64: syscall(2), and
//! `arch/x86/kernel/signal.c` for how one that was interrupted goes on.

use nix::libc::user_regs_struct;

pub(crate) type Registers = user_regs_struct;

/// The instruction `syscall`.
pub(crate) const SYSTEM_CALL: &[u8] = &[0x0f, 0x05];
/// Instructions start anywhere.
pub(crate) const ALIGNMENT: usize = 1;

/// Makes `registers` those of a thread about to do a system call at `instruction`.
pub(crate) fn prepare(registers: &mut Registers, instruction: u64, number: u64, arguments: [u64; 6]) {
    registers.rip = instruction;
    registers.rax = number;
    let [first, second, third, fourth, fifth, sixth] = arguments;
    registers.rdi = first;
    registers.rsi = second;
    registers.rdx = third;
    registers.r10 = fourth;
    registers.r8 = fifth;
    registers.r9 = sixth;
    // "In no system call": the kernel sets a thread that was stopped inside one
    // back to before it, if rax holds ERESTARTSYS or one like it. It does not any
    // more, but this says it without relying on the number.
    registers.orig_rax = u64::MAX;
}

/// So much below its stack pointer is the running function's own (System V ABI for
/// x86-64, "red zone").
const RED_ZONE: u64 = 128;
/// The bit of `eflags` that strings are copied downwards with.
const DIRECTION: u64 = 0x400;

/// Makes `registers` those of a thread that was just called `function` by what is at
/// `back`; answers what has to be written where in its memory.
pub(crate) fn prepare_function(registers: &mut Registers, function: u64, arguments: [u64; 2], back: u64) -> Option<(u64, u64)> {
    registers.rip = function;
    [registers.rdi, registers.rsi] = arguments;
    registers.rax = 0;
    registers.eflags &= !DIRECTION;
    // Aligned before the call, which puts the return address there.
    registers.rsp = ((registers.rsp - RED_ZONE) & !0xf) - 8;
    // See `prepare`.
    registers.orig_rax = u64::MAX;
    Some((registers.rsp, back))
}

/// The number and the fourth argument of the system call that a thread was stopped in.
pub(crate) fn interrupted_call(registers: &Registers) -> Option<(u64, u64)> {
    (registers.orig_rax != u64::MAX).then_some((registers.orig_rax, registers.r10))
}

/// The number of the system call that a thread stands at the entry of.
pub(crate) fn number(registers: &Registers) -> u64 {
    registers.orig_rax
}

/// What the system call returned: a value, or a negated errno.
pub(crate) fn result(registers: &Registers) -> i64 {
    registers.rax.cast_signed()
}

/// Where the thread goes on.
pub(crate) fn instruction(registers: &Registers) -> u64 {
    registers.rip
}
