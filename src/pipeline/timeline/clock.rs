//! Stub.
use crate::media::Micros;
pub struct RecordingClock {
    newest: Micros,
    origin: Option<Origin>,
}
#[derive(Clone, Copy)]
pub struct Origin {
    pub unix: Micros,
    pub from_server: bool,
}
pub struct Rebased {
    pub from: Micros,
    pub to: Micros,
}
pub enum Verdict {
    At(Micros),
    BadTimestamp,
    Limbo,
}
impl RecordingClock {
    pub fn new() -> Self {
        RecordingClock { newest: Micros(0), origin: None }
    }
    pub fn read(
        &mut self,
        relative: Option<Micros>,
        absolute: Option<Micros>,
        _wall: Micros,
        unix: Micros,
        _first: bool,
    ) -> Verdict {
        let Some(r) = relative else { return Verdict::BadTimestamp };
        self.newest = self.newest.max(r);
        if self.origin.is_none() {
            self.origin = Some(Origin { unix: absolute.unwrap_or(unix) - r, from_server: absolute.is_none() });
        }
        Verdict::At(r)
    }
    pub fn recheck(&self, r: Option<Micros>, _a: Option<Micros>, _w: Micros) -> Verdict {
        Verdict::At(r.unwrap_or_default())
    }
    pub fn now(&mut self, _wall: Micros, _idle: bool) -> Micros {
        self.newest
    }
    pub fn newest(&self) -> Micros {
        self.newest
    }
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }
    pub fn take_event(&mut self) -> Option<Rebased> {
        None
    }
}
