//! What is in a process's memory (proc_pid_smaps(5)). Pure.

/// A part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) may_read: bool,
    pub(super) may_write: bool,
    pub(super) may_execute: bool,
    pub(super) is_shared: bool,
    /// In the file.
    pub(super) offset: u64,
    /// 0 where there is no file.
    pub(super) inode: u64,
    /// The file's path, or what the kernel calls it, such as `[heap]`.
    pub(super) name: String,
    /// Bytes in memory or swapped out.
    pub(super) resident: u64,
    /// Those among them that are no file's.
    pub(super) private: u64,
    /// Whether the kernel or the program wants it in no core file.
    pub(super) is_excluded: bool,
}

impl Mapping {
    pub(super) fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// Reads `smaps`, or `maps`, which says less.
pub(super) fn parse(text: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = header(line) {
            all.push(mapping);
            continue;
        }
        let (Some(last), Some((key, value))) = (all.last_mut(), line.split_once(':')) else { continue };
        let bytes = || value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024;
        match key {
            "Rss" => last.resident += bytes(),
            "Anonymous" => last.private += bytes(),
            "Swap" => {
                last.resident += bytes();
                last.private += bytes();
            }
            // IO memory, memory without pages, and what madvise(2) said MADV_DONTDUMP of.
            "VmFlags" => last.is_excluded = value.split_ascii_whitespace().any(|flag| matches!(flag, "io" | "pf" | "dd")),
            _ => {}
        }
    }
    all
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE NAME`.
fn header(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let mut fields = rest.splitn(5, ' ');
    let permissions = fields.next()?.as_bytes();
    let offset = number(fields.next()?)?;
    let inode = fields.nth(1)?.parse().ok()?;
    let has = |index: usize, letter| permissions.get(index) == Some(&letter);
    Some(Mapping {
        start,
        end,
        may_read: has(0, b'r'),
        may_write: has(1, b'w'),
        may_execute: has(2, b'x'),
        is_shared: has(3, b's'),
        offset,
        inode,
        name: fields.next().unwrap_or_default().trim_start().to_owned(),
        ..Mapping::default()
    })
}

/// What of a mapping goes into a core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It can be read from its file, or was never used.
    Nothing,
    /// Its first page, by which debuggers know the file.
    FirstPage,
    /// The pages that are there.
    UsedPages,
    /// All.
    Everything,
}

/// The same choice as the kernel's own with its usual filter, 0x33 (core(5)): what is
/// no file's, and the first pages of programs. What was never used is left out, too.
pub(super) fn content(mapping: &Mapping) -> Content {
    let is_file = mapping.inode != 0 && !mapping.name.starts_with('[');
    // Memory that processes share has a file, which is nowhere.
    let is_shared_memory = is_file && mapping.is_shared && mapping.name.ends_with(" (deleted)");
    if mapping.name == "[vdso]" {
        Content::Everything
    } else if mapping.is_excluded || mapping.name == "[vsyscall]" || mapping.resident == 0 && !is_file {
        Content::Nothing
    } else if !is_file || is_shared_memory {
        Content::UsedPages
    } else if !mapping.is_shared && mapping.private > 0 {
        Content::Everything
    } else if !mapping.is_shared && mapping.may_read && mapping.offset == 0 {
        Content::FirstPage
    } else {
        Content::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0a000-55d0b000 r--p 00000000 08:01 77                         /app/web server
Size:                  4 kB
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
55d0b000-55d0c000 rw-p 00001000 08:01 77                         /app/web server
Rss:                   4 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac
c000000000-c000400000 rw-p 00000000 00:00 0
Rss:                 200 kB
Anonymous:           200 kB
Swap:                  8 kB
VmFlags: rd wr mr mw me ac
c000400000-c004000000 ---p 00000000 00:00 0
Rss:                   0 kB
7f00-8f00 rw-s 00000000 00:01 9 /memfd:x (deleted)
Rss:                   4 kB
9f00-af00 r--p 00000000 00:00 0 [vvar]
VmFlags: rd mr pf io de dd
bf00-cf00 r-xp 00000000 00:00 0 [vdso]
df00-ef00 rw-s 00000000 08:01 5 /data/file
Rss:                   4 kB
";

    #[test]
    fn mappings_are_read_and_chosen_from() {
        let all = parse(SMAPS);
        assert_eq!(all.iter().map(|mapping| mapping.name.as_str()).collect::<Vec<_>>()[..2], ["/app/web server", "/app/web server"]);
        assert_eq!((all[2].start, all[2].resident, all[2].private), (0xc0_0000_0000, 208 * 1024, 208 * 1024));
        let chosen: Vec<Content> = all.iter().map(content).collect();
        use Content::{Everything, FirstPage, Nothing, UsedPages};
        assert_eq!(chosen, [FirstPage, Everything, UsedPages, Nothing, UsedPages, Nothing, Everything, Nothing]);
    }

    #[test]
    fn this_process_has_a_stack_and_code() {
        let own = parse(&std::fs::read_to_string("/proc/self/smaps").unwrap());
        let stack = own.iter().find(|mapping| mapping.name == "[stack]").unwrap();
        assert!(stack.may_write && stack.private > 0 && content(stack) == Content::UsedPages);
        assert!(own.iter().any(|mapping| mapping.may_execute && mapping.inode != 0));
        let maps = parse(&std::fs::read_to_string("/proc/self/maps").unwrap());
        assert!(maps.iter().any(|mapping| mapping.may_execute && mapping.inode != 0 && mapping.resident == 0));
    }
}
