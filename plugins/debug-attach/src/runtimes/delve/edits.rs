//! What is changed in Delve's sources before it is built: a process that is served
//! stands still for as short as can be, and is left unharmed whatever happens.
//!
//! An edit answers `None` where the text is not the one that it is made for.

use std::fs;
use std::io;
use std::path::Path;

/// Counts the versions of what is here: another one makes another program.
pub(super) const EDITION: u32 = 2;

type Edit = fn(&str) -> Option<String>;

/// The files and what is edited there.
const ALL: [(&str, Edit); 3] =
    [("pkg/proc/native/proc_linux.go", early), ("pkg/proc/native/proc_linux.go", take_back), ("service/debugger/debugger.go", halt_first)];

/// Edits sources.
///
/// # Errors
/// When they are not those of the version that these edits are for.
pub(super) fn apply(sources: &Path) -> io::Result<()> {
    for (name, edit) in ALL {
        let path = sources.join(name);
        let text = edit(&fs::read_to_string(&path)?).ok_or_else(|| io::Error::other(format!("{name} is not as expected")))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Makes Delve read what there is to know of a program before it stops the process, in
/// place of after, while it stands still. What was read is of no use where another
/// program has taken the process over meanwhile.
fn early(text: &str) -> Option<String> {
    const STOPS: &str = "\tvar err error\n\tdbp.execPtraceFunc(func() { err = ptraceAttach(dbp.pid) })\n";
    const STANDS: &str = "\ttgt, err := dbp.initialize(findExecutable(\"\", dbp.pid), debugInfoDirs)\n";
    const BEFORE: &str = "\
\tprogram := findExecutable(\"\", dbp.pid)
\tread, _ := os.Stat(program)
\tif entryPoint, err := dbp.EntryPoint(); err == nil && read != nil {
\t\t_ = dbp.bi.LoadBinaryInfo(program, entryPoint, debugInfoDirs)
\t}
";
    const AFTER: &str = "\
\tif now, _ := os.Stat(program); read == nil || now == nil || !os.SameFile(read, now) {
\t\t_ = dbp.bi.Close()
\t\tdbp.bi = proc.NewBinaryInfo(\"linux\", dbp.bi.Arch.Name, true)
\t}
";
    let attach = text.find("\nfunc Attach(")?;
    let (head, body) = text.split_at(attach);
    let stops = body.find(STOPS)?;
    let stands = body.find(STANDS).filter(|stands| *stands > stops)?;
    Some([head, &body[..stops], BEFORE, &body[stops..stands], AFTER, &body[stands..]].concat())
}

/// Makes Delve take back the signal by which it halts a process before it detaches. That
/// signal waits where a breakpoint stopped the process in the same moment, and ends one
/// that nobody traces.
///
/// It is let through to one of the threads, which stand still, and stops it again: a
/// signal that a thread does not block is taken before its next instruction, and this one
/// before all others but those of the thread's own faults (signal(7), ptrace(2)).
fn take_back(text: &str) -> Option<String> {
    const DETACHES: &str = "\tfor threadID := range dbp.threads {\n\t\terr := ptraceDetach(threadID, 0)\n";
    const BEFORE: &str = "\tif !kill {\n\t\tdbp.takeTraps()\n\t}\n";
    const TAKES: &str = r#"
// takeTraps takes what is left of requestManualStop.
func (dbp *nativeProcess) takeTraps() {
	for id := range dbp.threads {
		for dbp.waitsFor(id, sys.SIGTRAP) {
			var status sys.WaitStatus
			if sys.PtraceCont(id, 0) != nil {
				break
			}
			if _, err := sys.Wait4(id, &status, sys.WALL, nil); err != nil || !status.Stopped() {
				return
			}
		}
	}
}

// waitsFor tells whether a signal waits that the thread does not block.
func (dbp *nativeProcess) waitsFor(id int, signal sys.Signal) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", dbp.pid, id))
	sets := map[string]uint64{}
	for _, line := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			sets[name], _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return (sets["SigPnd"]|sets["ShdPnd"])&^sets["SigBlk"]&(1<<(signal-1)) != 0
}
"#;
    let (head, tail) = text.split_at(text.find(DETACHES)?);
    Some([head, BEFORE, tail, TAKES].concat())
}

/// Makes Delve halt the process itself before it detaches: what a client asked for last
/// may have made it run again, and then there would be waited for its next breakpoint.
fn halt_first(text: &str) -> Option<String> {
    const DETACHES: &str = "\nfunc (d *Debugger) Detach(kill bool) error {\n";
    const WAITS: &str = "\td.targetMutex.Lock()\n";
    const HALTS: &str = "\
\tfor round := 0; !d.targetMutex.TryLock(); round++ {
\t\tif round%50 == 0 {
\t\t\t_ = d.target.RequestManualStop()
\t\t}
\t\ttime.Sleep(time.Millisecond)
\t}
";
    let detaches = text.find(DETACHES)? + DETACHES.len();
    let waits = detaches + text[detaches..].find(WAITS)?;
    Some([&text[..waits], HALTS, &text[waits + WAITS.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_before_the_process_stops() {
        let attach = "\nfunc Attach(pid int) {\n\tvar err error\n\tdbp.execPtraceFunc(func() { err = ptraceAttach(dbp.pid) })\n\t// waits\n\
                      \ttgt, err := dbp.initialize(findExecutable(\"\", dbp.pid), debugInfoDirs)\n}\n";
        let text = early(&format!("package native\n{attach}")).unwrap();
        let at = |part: &str| text.find(part).unwrap();
        assert!(at("LoadBinaryInfo") < at("ptraceAttach") && at("// waits") < at("SameFile") && at("SameFile") < at("dbp.initialize"));
        assert_eq!(early("package native\n"), None);
        assert_eq!(early(&attach.replace("ptraceAttach", "attach")), None);
    }
    #[test]
    fn the_process_is_halted_and_its_signal_taken_back_before_it_is_left() {
        let detach = "func (dbp *nativeProcess) detach(kill bool) error {\n\tfor threadID := range dbp.threads {\n\t\terr := ptraceDetach(threadID, 0)\n";
        let text = take_back(detach).unwrap();
        let at = |part: &str| text.find(part).unwrap();
        assert!(at("dbp.takeTraps()") < at("ptraceDetach") && at("ptraceDetach") < at("func (dbp *nativeProcess) takeTraps"));
        let detach = "\td.targetMutex.Lock()\n}\n\nfunc (d *Debugger) Detach(kill bool) error {\n\td.targetMutex.Lock()\n\tdefer d.targetMutex.Unlock()\n";
        let text = halt_first(detach).unwrap();
        assert!(text.starts_with("\td.targetMutex.Lock()\n}\n") && text.ends_with("\t}\n\tdefer d.targetMutex.Unlock()\n"), "{text}");
        assert!(text.contains("TryLock") && text.contains("RequestManualStop"));
        for edit in [take_back, halt_first] {
            assert_eq!(edit("package native\n"), None);
        }
    }
}
