//! A log in a file of this machine that is rotated by renaming: `NAME` becomes
//! `NAME.1`, that one `NAME.2`, and so on.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many rotated files are looked at.
const MOST_ROTATED: u32 = 16;

/// Where a log goes when it is rotated for the `number`th time, from 1.
pub fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// A log, open to be read on from where it was read to.
#[derive(Debug)]
pub struct LocalLog {
    path: PathBuf,
    file: File,
}

impl LocalLog {
    /// Opens the file that is written to now, at its beginning.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::open(path)? })
    }

    /// The last `count` lines, the file before it included where this one is too short.
    /// What is read next is what comes after them.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn last_lines(&mut self, count: usize) -> io::Result<Vec<String>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let mut lines = lines(&bytes);
        if lines.len() < count
            && let Some(mut before) = self.before()?
        {
            let mut bytes = Vec::new();
            before.read_to_end(&mut bytes)?;
            lines.splice(0..0, self::lines(&bytes));
        }
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }

    /// Reads on, across any number of rotations since the last time; 0 when there is no
    /// more by now.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.file.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let Some(next) = self.after()? else { return Ok(0) };
            // It was written to between its end being seen and its renaming.
            let count = self.file.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.file = next;
        }
    }

    /// The file that was begun after the open one. While files are looked at, they only
    /// move on to higher numbers, which are looked at later.
    fn after(&self) -> io::Result<Option<File>> {
        let own = self.file.metadata()?;
        let Some(mut newer) = open(&self.path)? else { return Ok(None) };
        if is_same(&own, &newer.metadata()?) {
            return Ok(None);
        }
        for number in 1..=MOST_ROTATED {
            let Some(file) = open(&rotated(&self.path, number))? else { continue };
            if is_same(&own, &file.metadata()?) {
                break;
            }
            newer = file;
        }
        Ok(Some(newer))
    }

    /// The newest file that was begun before the open one.
    fn before(&self) -> io::Result<Option<File>> {
        let own = self.file.metadata()?;
        for number in 1..=MOST_ROTATED {
            if let Some(file) = open(&rotated(&self.path, number))?
                && !is_same(&own, &file.metadata()?)
            {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;

    fn rotate(path: &Path) {
        for number in (1..8).rev() {
            let _ = fs::rename(rotated(path, number), rotated(path, number + 1));
        }
        fs::rename(path, rotated(path, 1)).unwrap();
        File::create(path).unwrap();
    }

    fn write(path: &Path, text: &str) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read_all(log: &mut LocalLog) -> String {
        let (mut all, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match log.read(&mut buffer).unwrap() {
                0 => return String::from_utf8(all).unwrap(),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn the_last_lines_are_of_two_files_at_most_and_what_follows_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.log");
        write(&path, "one\ntwo\n");
        rotate(&path);
        write(&path, "three\nfour\n");
        let mut log = LocalLog::open(&path).unwrap();
        assert_eq!(log.last_lines(1).unwrap(), ["four"]);
        assert_eq!(log.last_lines(3).unwrap(), ["two", "three", "four"]);
        assert_eq!(log.last_lines(9).unwrap(), ["one", "two", "three", "four"]);
        assert_eq!(log.last_lines(0).unwrap(), [""; 0]);
        write(&path, "five\n");
        assert_eq!(read_all(&mut log), "five\n");
        rotate(&path);
        assert_eq!(log.last_lines(9).unwrap(), ["one", "two", "three", "four", "five"], "wherever its file has gone");
        assert!(LocalLog::open(&folder.path().join("none.log")).is_err());
    }

    proptest! {
        /// Whatever is rotated between two looks, everything is read once and in order.
        #[test]
        fn nothing_is_lost_or_repeated_across_rotations(steps in prop::collection::vec(0..4_u8, 0..40)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("etcd.log");
            write(&path, "");
            let mut log = LocalLog::open(&path).unwrap();
            let (mut written, mut read, mut rotations) = (String::new(), String::new(), 0);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let line = format!("line {number}\n");
                        write(&path, &line);
                        written += &line;
                    }
                    // More than are kept may be gone between two looks.
                    2 if rotations < 7 => {
                        rotate(&path);
                        rotations += 1;
                    }
                    _ => {
                        read += &read_all(&mut log);
                        rotations = 0;
                    }
                }
            }
            read += &read_all(&mut log);
            prop_assert_eq!(read, written);
        }
    }
}
