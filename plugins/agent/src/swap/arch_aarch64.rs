//! System calls in the registers of aarch64: syscall(2), and
//! `arch/arm64/kernel/signal.c` for how one that was interrupted goes on.
//!
//! Written after the kernel's source and never run: the machines that this was
//! developed on are x86_64.

use nix::libc::user_regs_struct;

pub(super) type Registers = user_regs_struct;

/// The instruction `svc #0`.
pub(super) const SYSTEM_CALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
/// Instructions start at multiples of this.
pub(super) const ALIGNMENT: usize = 4;

/// Makes `registers` those of a thread about to do a system call at `instruction`.
///
/// Unlike x86_64, the kernel has set an interrupted system call back before
/// the tracer sees the thread, and leaves the rest alone when the tracer chose
/// another place to go on.
pub(super) fn prepare(registers: &mut Registers, instruction: u64, number: u64, arguments: [u64; 6]) {
    registers.pc = instruction;
    registers.regs[8] = number;
    registers.regs[..6].copy_from_slice(&arguments);
}

/// The number of the system call that a thread stands at the entry of.
pub(super) fn number(registers: &Registers) -> u64 {
    registers.regs[8]
}

/// What the system call returned: a value, or a negated errno.
pub(super) fn result(registers: &Registers) -> i64 {
    registers.regs[0].cast_signed()
}

/// Where the thread goes on.
pub(super) fn instruction(registers: &Registers) -> u64 {
    registers.pc
}
