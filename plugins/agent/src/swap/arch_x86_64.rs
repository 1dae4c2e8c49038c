//! System calls in the registers of x86_64: syscall(2), and
//! `arch/x86/kernel/signal.c` for how one that was interrupted goes on.

use nix::libc::user_regs_struct;

pub(super) type Registers = user_regs_struct;

/// The instruction `syscall`.
pub(super) const SYSTEM_CALL: &[u8] = &[0x0f, 0x05];
/// Instructions start anywhere.
pub(super) const ALIGNMENT: usize = 1;

/// Makes `registers` those of a thread about to do a system call at `instruction`.
pub(super) fn prepare(registers: &mut Registers, instruction: u64, number: u64, arguments: [u64; 6]) {
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

/// The number of the system call that a thread stands at the entry of.
pub(super) fn number(registers: &Registers) -> u64 {
    registers.orig_rax
}

/// What the system call returned: a value, or a negated errno.
pub(super) fn result(registers: &Registers) -> i64 {
    registers.rax.cast_signed()
}

/// Where the thread goes on.
pub(super) fn instruction(registers: &Registers) -> u64 {
    registers.rip
}
