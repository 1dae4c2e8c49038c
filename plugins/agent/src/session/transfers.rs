//! Transfers of a session: one is open at a time.

use super::Session;
use crate::failure::Failure;
use crate::incoming::ModeRule;
use crate::process::Proc;
use crate::protocol::{ByteString, MAX_CHUNK, ProcessId, Response};
use crate::root::ContainerPath;
use crate::swap::Swap;
use crate::transfer::{Ended, NewFiles, Sink, Target, Transfer, vanished_or};

impl Session {
    pub(super) fn open(&mut self, id: u32, begin: impl FnOnce(&mut Self) -> Result<Transfer, Failure>) -> Result<Option<Response>, String> {
        if let Some(open) = &self.transfer {
            return Err(format!("a transfer began while transfer {} was open", open.id));
        }
        Ok(match begin(self) {
            Ok(transfer) => self.proceed(transfer),
            Err(failure) => Some(self.end(id, failure.into())),
        })
    }

    pub(super) fn receive_files(
        &mut self,
        id: u32,
        processes: &[ProcessId],
        path: &ByteString,
        (mode, modified): (ModeRule, Option<(i64, u32)>),
        size: u64,
        base: Option<[u8; 32]>,
    ) -> Result<Transfer, Failure> {
        let path = ContainerPath::parse(path)?;
        let base = base.map(|hash| self.memory.bases.open(&self.proc, processes, &path, hash)).transpose()?;
        let target = |process: &ProcessId| Target {
            process: *process,
            recorder: self.known_recorder(*process),
            reached: self.memory.reached.get(process).cloned(),
        };
        let targets = processes.iter().map(target).collect();
        let files = NewFiles { path: path.clone(), mode, modified, targets };
        let sink = match usize::try_from(size) {
            Ok(size) if size <= MAX_CHUNK && base.is_none() => Sink::Small { files, bytes: Vec::with_capacity(size) },
            _ => files.begin(&self.proc, &mut self.memory),
        };
        Ok(Transfer::new(id, size, path, base, sink))
    }

    pub(super) fn receive_program(
        &mut self,
        id: u32,
        process: ProcessId,
        executable: &ByteString,
        argv: Option<Vec<ByteString>>,
        size: u64,
        base: Option<[u8; 32]>,
    ) -> Result<Transfer, Failure> {
        let path = ContainerPath::parse(executable)?;
        let begun = self.container(process).and_then(|place| {
            let base = base.map(|hash| self.memory.bases.open(&self.proc, &[process], &path, hash)).transpose()?;
            let argv = argv.map(|argv| argv.into_iter().map(|word| word.0).collect());
            let swap = Swap::begin(&self.proc, process, path.clone(), argv, place)?;
            Ok(Transfer::new(id, size, path, base, Sink::Swap(process, Box::new(swap))))
        });
        begun.map_err(|failure| vanished_or(&self.proc, process, failure))
    }

    /// Gives the next bytes to the open transfer.
    pub(super) fn feed(
        &mut self,
        id: u32,
        give: impl FnOnce(&mut Transfer, &Proc) -> Result<Result<(), Failure>, String>,
    ) -> Result<Option<Response>, String> {
        let Some(mut transfer) = self.take_transfer(id)? else { return Ok(None) };
        Ok(match give(&mut transfer, &self.proc)? {
            Ok(()) => self.proceed(transfer),
            Err(failure) => Some(self.fail(&transfer, failure)),
        })
    }

    /// The open transfer `id`; `None` if it ended, without the client knowing yet.
    pub(super) fn take_transfer(&mut self, id: u32) -> Result<Option<Transfer>, String> {
        match self.transfer.take() {
            Some(transfer) if transfer.id == id => Ok(Some(transfer)),
            open => {
                self.transfer = open;
                if self.ended == Some(id) { Ok(None) } else { Err(format!("no transfer {id} is open")) }
            }
        }
    }

    /// Waits for more, or finishes the transfer after its last byte.
    fn proceed(&mut self, transfer: Transfer) -> Option<Response> {
        if !transfer.is_complete() {
            self.transfer = Some(transfer);
            return None;
        }
        let (id, process) = (transfer.id, transfer.process());
        let response = match transfer.finish(&self.proc, &mut self.memory) {
            Ok(Ended { response, previous }) => {
                self.previous.extend(previous);
                response
            }
            Err(failure) => self.explain(process, failure),
        };
        Some(self.end(id, response))
    }

    fn fail(&mut self, transfer: &Transfer, failure: Failure) -> Response {
        let response = self.explain(transfer.process(), failure);
        self.end(transfer.id, response)
    }

    fn explain(&self, process: Option<ProcessId>, failure: Failure) -> Response {
        match process {
            Some(process) => vanished_or(&self.proc, process, failure).into(),
            None => failure.into(),
        }
    }

    /// The one answer to a transfer.
    pub(super) fn end(&mut self, id: u32, response: Response) -> Response {
        self.ended = Some(id);
        response
    }
}
