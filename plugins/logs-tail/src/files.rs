//! One file for each container, a new one when it is full.

use crate::lines::place::Place;
use crate::setup::FileOptions;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Result, Write};
use std::path::PathBuf;

/// Files that are open at once; more are closed and opened again.
const MOST_OPEN: usize = 128;

/// Writes the files of a folder.
#[derive(Debug)]
pub(crate) struct Files {
    options: FileOptions,
    open: HashMap<String, Open>,
    clock: u64,
}

#[derive(Debug)]
struct Open {
    file: BufWriter<File>,
    size: u64,
    used: u64,
}

impl Files {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it can't.
    pub(crate) fn new(options: FileOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.folder)?;
        Ok(Self { options, open: HashMap::new(), clock: 0 })
    }

    /// Adds to the file of a container. What was there stays.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write(&mut self, place: &Place, bytes: &[u8]) -> Result<()> {
        let name = name(place);
        self.clock += 1;
        if !self.open.contains_key(&name) {
            self.make_room()?;
            let file = OpenOptions::new().append(true).create(true).open(self.path(&name, 0))?;
            let size = file.metadata()?.len();
            self.open.insert(name.clone(), Open { file: BufWriter::new(file), size, used: 0 });
        }
        let is_full = self.open.get(&name).is_some_and(|open| open.size > 0 && open.size + bytes.len() as u64 > self.options.max_size);
        if is_full {
            self.rotate(&name)?;
        }
        let Some(open) = self.open.get_mut(&name) else { return Ok(()) };
        open.used = self.clock;
        open.size += bytes.len() as u64;
        open.file.write_all(bytes)
    }

    /// Lets be seen what was written.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.open.values_mut().try_for_each(|open| open.file.flush())
    }

    fn make_room(&mut self) -> Result<()> {
        if self.open.len() < MOST_OPEN {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
        match oldest.and_then(|name| self.open.remove(&name)) {
            Some(mut open) => open.file.flush(),
            None => Ok(()),
        }
    }

    /// `x.log` becomes `x.log.1`, that `x.log.2`; the oldest goes.
    fn rotate(&mut self, name: &str) -> Result<()> {
        if let Some(mut open) = self.open.remove(name) {
            open.file.flush()?;
        }
        for number in (0..self.options.keep).rev() {
            let from = self.path(name, number);
            if from.exists() {
                std::fs::rename(from, self.path(name, number + 1))?;
            }
        }
        let options = OpenOptions::new().write(true).create(true).truncate(true).open(self.path(name, 0))?;
        self.open.insert(name.to_owned(), Open { file: BufWriter::new(options), size: 0, used: self.clock });
        Ok(())
    }

    fn path(&self, name: &str, number: usize) -> PathBuf {
        self.options.folder.join(if number == 0 { format!("{name}.log") } else { format!("{name}.log.{number}") })
    }
}

/// `namespace_pod_container`, as the kubelet names its links; names can't have
/// underscores. Nothing but letters, digits, dashes and dots reaches the disk.
fn name(place: &Place) -> String {
    let safe = |text: &str| -> String {
        text.chars().map(|character| if character.is_ascii_alphanumeric() || "-.".contains(character) { character } else { '-' }).collect()
    };
    if place.pod.is_empty() {
        return "stdin".into();
    }
    format!("{}_{}_{}", safe(&place.namespace), safe(&place.pod), safe(&place.container))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_apart_and_rotated_and_added_to() {
        let folder = std::env::temp_dir().join(format!("logs-tail-files-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let options = FileOptions { folder: folder.clone(), max_size: 10, keep: 2 };
        let place = |pod: &str| Place { namespace: "shop".into(), pod: pod.into(), container: "app".into(), ..Place::default() };
        for text in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "much too long for it\n"] {
            // Each time anew, as by runs one after the other.
            let mut files = Files::new(options.clone()).unwrap();
            files.write(&place("a"), text.as_bytes()).unwrap();
            files.flush().unwrap();
        }
        let mut files = Files::new(options).unwrap();
        for number in 0..MOST_OPEN + 10 {
            files.write(&place(&format!("b{number}")), b"x\n").unwrap();
        }
        files.write(&place("../up"), b"x\n").unwrap();
        files.flush().unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(read("shop_a_app.log"), "much too long for it\n");
        assert_eq!((read("shop_a_app.log.1"), read("shop_a_app.log.2")), ("six\n".into(), "four\nfive\n".into()));
        assert!(!folder.join("shop_a_app.log.3").exists());
        assert_eq!((read("shop_b0_app.log"), read("shop_..-up_app.log")), ("x\n".into(), "x\n".into()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
