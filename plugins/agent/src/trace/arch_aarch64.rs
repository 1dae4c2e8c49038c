//! System calls in the registers of aarch64: syscall(2), and
//! `arch/arm64/kernel/signal.c` for how one that was interrupted goes on.
//!
//! Written after the kernel's source and never run: the machines that this was
//! developed on are x86_64.

use nix::libc::user_regs_struct;

pub(crate) type Registers = user_regs_struct;

/// The instruction `svc #0`.
pub(crate) const SYSTEM_CALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
/// Instructions start at multiples of this.
pub(crate) const ALIGNMENT: usize = 4;

/// Makes `registers` those of a thread about to do a system call at `instruction`.
///
/// Unlike x86_64, the kernel has set an interrupted system call back before
/// the tracer sees the thread, and leaves the rest alone when the tracer chose
/// another place to go on.
pub(crate) fn prepare(registers: &mut Registers, instruction: u64, number: u64, arguments: [u64; 6]) {
    registers.pc = instruction;
    registers.regs[8] = number;
    registers.regs[..6].copy_from_slice(&arguments);
}

/// Makes `registers` those of a thread that was just called `function` by what is at
/// `back` (AAPCS64); nothing has to be written to its memory.
pub(crate) fn prepare_function(registers: &mut Registers, function: u64, arguments: [u64; 2], back: u64) -> Option<(u64, u64)> {
    registers.pc = function;
    registers.regs[..2].copy_from_slice(&arguments);
    registers.regs[30] = back;
    registers.sp &= !0xf;
    None
}

/// The registers don't tell whether a thread was stopped in a system call.
pub(crate) fn interrupted_call(_registers: &Registers) -> Option<(u64, u64)> {
    None
}

/// The number of the system call that a thread stands at the entry of.
pub(crate) fn number(registers: &Registers) -> u64 {
    registers.regs[8]
}

/// What the system call returned: a value, or a negated errno.
pub(crate) fn result(registers: &Registers) -> i64 {
    registers.regs[0].cast_signed()
}

/// Where the thread goes on.
pub(crate) fn instruction(registers: &Registers) -> u64 {
    registers.pc
}
