//! The parts of the registers of a processor that tools look at, as the kernel's
//! `struct user_regs_struct` and `<asm/perf_regs.h>` have them.

use framehop::UnwindRegsNative;

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) instruction: u64,
    pub(super) stack: u64,
    pub(super) frame: u64,
    /// The link register; 0 where there is none.
    pub(super) link: u64,
}

#[cfg(target_arch = "x86_64")]
mod values {
    use super::Point;

    /// `e_machine` of elf(5): `EM_X86_64`.
    pub(in super::super) const MACHINE: u16 = 62;
    /// `NT_X86_XSTATE` of `<linux/elf.h>`: what a core has of registers beyond the usual.
    pub(in super::super) const EXTRA_REGISTERS: &[u32] = &[0x202];
    /// `PERF_REG_X86_BP`, `_SP`, `_IP`.
    pub(in super::super) const PERF_REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;
    /// Their number.
    pub(in super::super) const PERF_COUNT: usize = 3;

    /// From the perf registers above, in their order.
    pub(in super::super) fn sampled(values: [u64; PERF_COUNT]) -> Point {
        Point { frame: values[0], stack: values[1], instruction: values[2], link: 0 }
    }

    /// From the general registers: `r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx
    /// rsi rdi orig_rax rip cs eflags rsp ss ...`.
    pub(in super::super) fn general(word: impl Fn(usize) -> u64) -> Point {
        Point { frame: word(4), instruction: word(16), stack: word(19), link: 0 }
    }
}

#[cfg(target_arch = "aarch64")]
mod values {
    use super::Point;

    /// `e_machine` of elf(5): `EM_AARCH64`.
    pub(in super::super) const MACHINE: u16 = 183;
    /// `NT_ARM_TLS` and `NT_ARM_PAC_MASK` of `<linux/elf.h>`.
    pub(in super::super) const EXTRA_REGISTERS: &[u32] = &[0x401, 0x406];
    /// `PERF_REG_ARM64_X29`, `_LR`, `_SP`, `_PC`.
    pub(in super::super) const PERF_REGISTERS: u64 = 1 << 29 | 1 << 30 | 1 << 31 | 1 << 32;
    /// Their number.
    pub(in super::super) const PERF_COUNT: usize = 4;

    /// From the perf registers above, in their order.
    pub(in super::super) fn sampled(values: [u64; PERF_COUNT]) -> Point {
        Point { frame: values[0], link: values[1], stack: values[2], instruction: values[3] }
    }

    /// From the general registers: `x0 ... x30 sp pc pstate`.
    pub(in super::super) fn general(word: impl Fn(usize) -> u64) -> Point {
        Point { frame: word(29), link: word(30), stack: word(31), instruction: word(32) }
    }
}

pub(super) use values::{EXTRA_REGISTERS, MACHINE, PERF_COUNT, PERF_REGISTERS, general, sampled};

impl Point {
    /// The same for the unwinder.
    pub(super) fn registers(self) -> UnwindRegsNative {
        #[cfg(target_arch = "x86_64")]
        return UnwindRegsNative::new(self.instruction, self.stack, self.frame);
        #[cfg(target_arch = "aarch64")]
        return UnwindRegsNative::new(self.link, self.stack, self.frame);
    }
}
