//! The end of a track: `ticks.jsonl` from the journals, and the MP4 from the segments. Blocking file work, done by one
//! thread of low priority.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::Fill;
use crate::ffmpeg::{PictureReader, ReadError};
use crate::media::{Canvas, GapReason, Micros, ParameterSets, Picture, Tick};
use crate::metrics::{Metrics, Stage};

use super::encode::{EncodeError, Encoder, EncoderSettings, filler::Filler, x264::X264};
use super::package::assemble::{AssembleError, Movie, Span, assemble};
use super::package::boxes::{Track, init_segment};
use super::store::journal::{PartLine, Run, RunKind};
use super::store::keys;
use super::store::lists::settle_list;
use super::store::manifest::{Gap, Mp4Manifest};
use super::store::space::{Op, Space};
use super::store::spool::{JOURNAL, SEGMENTS, read_lines};

/// Tracks that wait to be assembled; a keeper waits when it is full.
pub const ASSEMBLE_JOBS_MAX: usize = 64;
/// One line per picture or run of alike ticks.
pub const TICKS: &str = "ticks.jsonl";
/// The finished file.
pub const MP4: &str = "video.mp4";

/// A track to be assembled.
#[derive(Clone)]
pub struct AssembleJob {
    /// The track's folder in the spool.
    pub dir: PathBuf,
    /// Its epochs, in order.
    pub epochs: Vec<String>,
    /// First tick, ticks and file of each segment, in order.
    pub spans: Vec<(Tick, Tick, PathBuf)>,
    /// Ticks that the MP4 has, from 0.
    pub ticks: Tick,
    /// The track's canvas; without one there never was a picture, and there is no MP4.
    pub canvas: Option<Canvas>,
    /// Ranges without pictures, with their reasons.
    pub gaps: Vec<Gap>,
    /// The participant's name.
    pub title: Option<String>,
    /// Absolute time of tick 0.
    pub origin: Micros,
    /// Whether an MP4 is wanted.
    pub mp4: bool,
    /// What the track was encoded with.
    pub encoder: EncoderSettings,
    /// Ticks of a segment cell.
    pub segment_ticks: u32,
    /// What is shown where no segment is.
    pub fill: Fill,
}

/// Why there is no MP4.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A file of the spool.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The filler.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The segments.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The thread has ended.
    #[error("the process is stopping")]
    Stopping,
}

impl AssemblyError {
    /// Whether the disk is in the way, not the segments: another try may do.
    pub fn is_transient(&self) -> bool {
        match self {
            // What is gone does not come back.
            AssemblyError::Io { source, .. } => source.kind() != std::io::ErrorKind::NotFound,
            AssemblyError::Stopping | AssemblyError::Assemble(AssembleError::Write(_)) => true,
            _ => false,
        }
    }
}

/// A job and where its answer goes.
pub type Asked = (AssembleJob, oneshot::Sender<Result<Option<Mp4Manifest>, AssemblyError>>);

/// The thread's life: ends when every sender is gone.
pub fn run(jobs: &Receiver<Asked>, clock: &dyn Clock, metrics: &Metrics, space: &Space) {
    // Live tracks come first: this thread takes what they leave. Where the kernel refuses, it is as fast as they are.
    let _ = rustix::process::setpriority_process(None, 10);
    while let Ok((job, answer)) = jobs.recv() {
        let start = clock.mono();
        let done = finish(&job, space);
        metrics.took(Stage::Assemble, clock.mono() - start);
        let _ = answer.send(done);
    }
}

/// Not held back by a quota, though counted: what is finished leaves the spool, and so makes room.
fn finish(job: &AssembleJob, space: &Space) -> Result<Option<Mp4Manifest>, AssemblyError> {
    let lists = job.epochs.iter().map(|epoch| job.dir.join(epoch).join(SEGMENTS));
    let files: Vec<PathBuf> = [TICKS, MP4].iter().map(|name| job.dir.join(name)).chain(lists).collect();
    let size = || files.iter().map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len())).sum();
    let before = size();
    let made = space.run(Op::Assembly, || Ok(())).map_err(at(&job.dir)).and_then(|()| write_all(job));
    space.resized(before, size());
    if let Err(AssemblyError::Io { source, .. } | AssemblyError::Assemble(AssembleError::Write(source))) = &made {
        space.note(source);
    }
    made
}

fn write_all(job: &AssembleJob) -> Result<Option<Mp4Manifest>, AssemblyError> {
    std::fs::create_dir_all(&job.dir).map_err(at(&job.dir))?;
    for epoch in &job.epochs {
        let dir = job.dir.join(epoch);
        let mine = job.spans.iter().filter(|span| span.2.parent() == Some(&dir));
        let numbers = mine.filter_map(|span| keys::segment_number(span.2.file_name()?.to_str()?)).collect();
        settle_list(&dir, &numbers).map_err(at(&dir))?;
    }
    let runs = job.epochs.iter().flat_map(|epoch| journal_runs(&job.dir.join(epoch).join(JOURNAL)));
    write_ticks(job, runs.filter(|run| run.as_ref().map_or(true, |run| is_in_a_segment(&job.spans, run))))?;
    write_movie(job)
}

/// Whether what the journal says of these ticks is in the output: a segment may have been abandoned.
fn is_in_a_segment(spans: &[(Tick, Tick, PathBuf)], run: &Run) -> bool {
    let before = spans.partition_point(|(first, ..)| *first <= run.tick);
    before.checked_sub(1).is_some_and(|n| run.tick < spans[n].0 + spans[n].1)
}

/// Writes the MP4 whole, if there is to be one: from the segments, and filler between them.
///
/// # Errors
/// Of the segments, the encoder that makes the filler, the file system; what was there before is then still there.
pub fn write_movie(job: &AssembleJob) -> Result<Option<Mp4Manifest>, AssemblyError> {
    let settings = &job.encoder;
    let Some(canvas) = job.canvas.filter(|_| job.mp4) else { return Ok(None) };
    let sets: ParameterSets = X264::open(settings, canvas)?.parameter_sets().clone();
    let track = Track { canvas, fps: settings.fps, sets: &sets };
    let mut pieces = Vec::with_capacity(job.spans.len() + 1);
    let (mut next, mut before) = (0, None);
    for (first, ticks, path) in &job.spans {
        if *first > next {
            pieces.push(Piece::Filler(first - next, filler(job, &track, before)?));
        }
        pieces.push(Piece::Segment(path));
        (next, before) = (first + ticks, Some(path.as_path()));
    }
    if job.ticks > next {
        pieces.push(Piece::Filler(job.ticks - next, filler(job, &track, before)?));
    }
    let spans: Vec<Span> = pieces.iter().map(Piece::span).collect();
    let movie = Movie { track, title: job.title.as_deref(), origin_unix: job.origin, expected_ticks: job.ticks };
    let path = job.dir.join(MP4);
    let aside = job.dir.join(format!("{MP4}.new"));
    let mut out = File::create(&aside).map_err(at(&aside))?;
    let done = assemble(&mut out, &movie, &spans).inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
    out.sync_all().and_then(|()| std::fs::rename(&aside, &path)).map_err(at(&path))?;
    Ok(Some(Mp4Manifest {
        path: MP4.to_owned(),
        from_tick: 0,
        ticks: done.ticks,
        bytes: done.bytes,
        sha256: done.sha256,
    }))
}

/// What an MP4 is made of, in order.
enum Piece<'a> {
    Segment(&'a Path),
    /// So many ticks that no segment has.
    Filler(Tick, Arc<Filler>),
}

impl Piece<'_> {
    fn span(&self) -> Span<'_> {
        match self {
            Piece::Segment(path) => Span::Segment(path),
            Piece::Filler(ticks, filler) => Span::Filler { ticks: *ticks, gop: filler.gop(None) },
        }
    }
}

/// The prepared GOP for a hole behind the segment `before`: as live, black, or the last picture. At the start there is
/// none to hold.
fn filler(job: &AssembleJob, track: &Track, before: Option<&Path>) -> Result<Arc<Filler>, AssemblyError> {
    let (settings, canvas, ticks) = (&job.encoder, track.canvas, job.segment_ticks);
    if let (Fill::Hold, Some(path)) = (job.fill, before) {
        let segment = std::fs::read(path).map_err(at(path))?;
        match last_picture(path, &[init_segment(track), segment].concat()) {
            Ok(Some(picture)) => return Ok(Arc::new(Filler::prepare(settings, canvas, &picture, ticks)?)),
            Ok(None) => tracing::warn!(segment = %path.display(), "no picture to hold: black instead"),
            Err(error) => tracing::warn!(%error, "no picture to hold: black instead"),
        }
    }
    Ok(Filler::black(settings, canvas, ticks)?)
}

fn last_picture(path: &Path, bytes: &[u8]) -> Result<Option<Picture>, ReadError> {
    let mut last = None;
    for picture in PictureReader::open_bytes_strict(&path.display().to_string(), bytes)? {
        last = Some(picture?.1);
    }
    Ok(last)
}

/// The runs of an epoch's journal.
fn journal_runs(journal: &Path) -> Vec<Result<Run, AssemblyError>> {
    match read_lines::<PartLine>(journal, 1) {
        Ok(parts) => parts.into_iter().flat_map(|part| part.runs).map(Ok).collect(),
        Err(error) => vec![Err(at(journal)(error))],
    }
}

/// Writes `ticks.jsonl` whole, what each tick of the MP4 shows: `runs`, in order, and between them the gaps.
///
/// # Errors
/// The first one of `runs`, and those of the file system; what was there before is then still there.
pub fn write_ticks(
    job: &AssembleJob,
    runs: impl IntoIterator<Item = Result<Run, AssemblyError>>,
) -> Result<(), AssemblyError> {
    let path = job.dir.join(format!("{TICKS}.new"));
    let mut out = BufWriter::new(File::create(&path).map_err(at(&path))?);
    let mut pending: Option<Run> = None;
    let mut next = 0;
    let mut put = |run: Run| -> Result<(), AssemblyError> {
        match &mut pending {
            Some(last) if last.joins(&run) => last.n += run.n,
            last => {
                if let Some(run) = last.replace(run) {
                    write_run(&mut out, &run).map_err(at(&path))?;
                }
            }
        }
        Ok(())
    };
    for run in runs {
        let run = run?;
        fill(job, next, run.tick, &mut put)?;
        next = run.tick + run.n;
        put(run)?;
    }
    if job.canvas.is_some() {
        fill(job, next, job.ticks, &mut put)?;
    }
    if let Some(run) = pending {
        write_run(&mut out, &run).map_err(at(&path))?;
    }
    let whole = out.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
    whole.and_then(|()| std::fs::rename(&path, job.dir.join(TICKS))).map_err(at(&path))
}

fn write_run(out: &mut impl Write, run: &Run) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, run)?;
    out.write_all(b"\n")
}

/// The ticks `from..to`, which are in no segment, split where their reason changes.
fn fill(
    job: &AssembleJob,
    from: Tick,
    to: Tick,
    put: &mut impl FnMut(Run) -> Result<(), AssemblyError>,
) -> Result<(), AssemblyError> {
    let mut tick = from;
    while tick < to {
        let gap = job.gaps.iter().find(|gap| (gap.from_tick..gap.to_tick).contains(&tick));
        let later = job.gaps.iter().map(|gap| gap.from_tick).filter(|first| *first > tick).min();
        let end = gap.map(|gap| gap.to_tick).or(later).unwrap_or(to).min(to);
        let reason = gap.map_or(GapReason::Unknown, |gap| gap.reason);
        put(Run::without_picture(tick, end - tick, RunKind::Filled, Some(reason)))?;
        tick = end;
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> AssemblyError {
    let path = path.to_owned();
    move |source| AssemblyError::Io { path, source }
}
