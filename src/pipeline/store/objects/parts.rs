//! A large file, put in parts. What is under way is kept in the spool beside the file, before the first part is sent: after
//! a death the upload goes on with the parts that are missing, and one that cannot go on is aborted, so that nobody pays for
//! what is left of it.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{PutMultipartOptions, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::stored::{Sums, hex, md5};
use super::turns::Class;
use super::{Objects, PutError, Wanted};

/// What S3 allows.
const PARTS_MAX: u64 = 10_000;
/// So often an upload may fail to be completed before another one is begun: the store may not know it any more.
const REFUSED_MAX: usize = 3;
/// Parts of one file that are on their way at once.
const AT_ONCE: usize = 3;

/// The first line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    key: String,
    upload: String,
    bytes: u64,
    piece: usize,
}

/// A line for each part that the store has.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sent {
    part: usize,
    id: String,
    md5: String,
}

/// A line for each time that the store did not complete it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Refused {
    refused: String,
}

/// What is known of an upload.
struct Record {
    begun: Begun,
    sent: Vec<Sent>,
    refused: usize,
}

/// What the name of such a file ends with.
pub const RECORD: &str = "upload";

/// The file beside `path` that says what of it is under way.
pub fn record_of(path: &Path) -> PathBuf {
    path.with_added_extension(RECORD)
}

/// What a record holds. A part whose line is torn was not sent, as far as anybody knows.
fn read(text: &str) -> Option<Record> {
    let mut lines = text.lines();
    let begun = serde_json::from_str(lines.next()?).ok()?;
    let mut record = Record { begun, sent: Vec::new(), refused: 0 };
    for line in lines {
        if let Ok(sent) = serde_json::from_str(line) {
            record.sent.push(sent);
        } else if serde_json::from_str::<Refused>(line).is_ok() {
            record.refused += 1;
        }
    }
    Some(record)
}

/// An upload that is under way.
struct Upload<'a> {
    objects: &'a Objects,
    store: &'a dyn MultipartStore,
    wanted: &'a Wanted<'a>,
    path: &'a Path,
    begun: Begun,
}

impl Objects {
    /// Puts a file in parts; goes on with what an earlier try, or an earlier process, began.
    pub(super) async fn put_in_parts(
        &self,
        store: &dyn MultipartStore,
        wanted: &Wanted<'_>,
        path: &Path,
        bytes: u64,
    ) -> Result<(), PutError> {
        let record = record_of(path);
        let text = tokio::fs::read_to_string(&record).await.unwrap_or_default();
        let piece = (bytes.div_ceil(PARTS_MAX) as usize).max(self.piece());
        let goes_on = |left: &Record| {
            let same = left.begun.key == wanted.key.as_ref() && (left.begun.bytes, left.begun.piece) == (bytes, piece);
            same && left.refused < REFUSED_MAX
        };
        let (begun, sent) = match read(&text) {
            Some(left) if goes_on(&left) => (left.begun, left.sent),
            left => {
                if let Some(left) = left {
                    self.abort(store, &left.begun).await?;
                }
                (self.begin(store, wanted, &record, bytes, piece).await?, Vec::new())
            }
        };
        let upload = Upload { objects: self, store, wanted, path, begun };
        upload.finish(&record, sent).await?;
        let _ = tokio::fs::remove_file(&record).await;
        Ok(())
    }

    /// Begins an upload, and keeps that it has.
    async fn begin(
        &self,
        store: &dyn MultipartStore,
        wanted: &Wanted<'_>,
        record: &Path,
        bytes: u64,
        piece: usize,
    ) -> Result<Begun, PutError> {
        let options = PutMultipartOptions { attributes: self.attributes(wanted.key), ..PutMultipartOptions::default() };
        let _turn = self.turn(wanted.owner, Class::Finished).await;
        let created = self.in_time(store.create_multipart_opts(wanted.key, options)).await;
        let upload = created.map_err(|source| self.failed(wanted.key, source))?;
        let begun = Begun { key: wanted.key.to_string(), upload, bytes, piece };
        match write(record, &begun, true).await {
            Ok(()) => {}
            // A full disk gets room when this file is in the store: then a death may leave parts behind.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                tracing::warn!(key = begun.key, %error, "cannot keep that an upload has begun");
            }
            Err(error) => {
                self.abort(store, &begun).await?;
                return Err(unreadable(record)(error));
            }
        }
        Ok(begun)
    }

    async fn abort(&self, store: &dyn MultipartStore, begun: &Begun) -> Result<(), PutError> {
        let Ok(key) = Key::parse(&begun.key) else { return Ok(()) };
        match self.in_time(store.abort_multipart(&key, &begun.upload)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed(&key, source)),
        }
    }

    /// Aborts what a record in the spool says is under way.
    ///
    /// # Errors
    /// Of the store: it is worth another try.
    pub async fn abort_recorded(&self, record: &Path) -> Result<(), PutError> {
        let text = tokio::fs::read_to_string(record).await.unwrap_or_default();
        match (&self.shared.parts, read(&text)) {
            (Some(store), Some(record)) => self.abort(&**store, &record.begun).await,
            _ => Ok(()),
        }
    }
}

impl Upload<'_> {
    /// Sends what is missing, and completes.
    async fn finish(&self, record: &Path, sent: Vec<Sent>) -> Result<(), PutError> {
        let count = self.begun.bytes.div_ceil(self.begun.piece as u64) as usize;
        let mut known: Vec<Option<Sent>> = vec![None; count];
        for part in sent {
            if let Some(slot) = known.get_mut(part.part) {
                *slot = Some(part);
            }
        }
        let parts = stream::iter(known.into_iter().enumerate()).map(|(n, known)| self.part(n, known, record));
        let parts: Vec<(PartId, [u8; 16])> = parts.buffered(AT_ONCE).try_collect().await?;
        let (ids, pieces) = parts.into_iter().unzip();
        let sums = Sums { pieces, piece: self.begun.piece, in_parts: true };
        let _turn = self.objects.turn(self.wanted.owner, Class::Finished).await;
        let completed = self.store.complete_multipart(self.wanted.key, &self.begun.upload, ids);
        match self.objects.in_time(completed).await {
            Ok(put) => {
                let checked = self.objects.check(self.wanted.key, put.e_tag.as_deref(), &sums).await;
                if checked.is_err() {
                    // It is complete: the next try begins anew.
                    let _ = tokio::fs::remove_file(record).await;
                }
                checked
            }
            Err(source) => {
                // An earlier try may have completed it, and its answer was lost: then the store no longer knows the upload.
                if self.objects.has(self.wanted.key, self.begun.bytes, &sums).await? {
                    return Ok(());
                }
                let refused = write(record, &Refused { refused: source.to_string() }, false).await;
                refused.map_err(unreadable(record))?;
                Err(self.objects.failed(self.wanted.key, source))
            }
        }
    }

    /// Sends a part, unless the store has it with these very bytes.
    async fn part(&self, n: usize, known: Option<Sent>, record: &Path) -> Result<(PartId, [u8; 16]), PutError> {
        let _turn = self.objects.turn(self.wanted.owner, Class::Finished).await;
        let bytes = self.read(n).await.map_err(unreadable(self.path))?;
        let sum = md5(&bytes);
        if let Some(known) = known.filter(|known| known.md5 == hex(&sum)) {
            return Ok((PartId { content_id: known.id }, sum));
        }
        let put = self.store.put_part(self.wanted.key, &self.begun.upload, n, PutPayload::from(bytes));
        let id = self.objects.in_time(put).await.map_err(|source| self.objects.failed(self.wanted.key, source))?;
        let sent = Sent { part: n, id: id.content_id.clone(), md5: hex(&sum) };
        if let Err(error) = write(record, &sent, false).await {
            tracing::warn!(%error, "cannot keep that a part is sent: after a death it is sent again");
        }
        Ok((id, sum))
    }

    async fn read(&self, n: usize) -> std::io::Result<Vec<u8>> {
        let start = (n * self.begun.piece) as u64;
        let mut file = tokio::fs::File::open(self.path).await?;
        file.seek(std::io::SeekFrom::Start(start)).await?;
        let mut bytes = vec![0; (self.begun.bytes - start).min(self.begun.piece as u64) as usize];
        file.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> PutError {
    let path = path.display().to_string();
    move |source| PutError::Spool { path, source }
}

/// Appends a line; the first one makes the file, and is on the disk when this returns.
async fn write(path: &Path, line: &impl Serialize, first: bool) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut file =
        tokio::fs::OpenOptions::new().create(true).append(!first).write(true).truncate(first).open(path).await?;
    file.write_all(text.as_bytes()).await?;
    file.flush().await?;
    if first { file.sync_all().await } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_says_what_is_certain() {
        let begun = Begun { key: "r/video.mp4".into(), upload: "id".into(), bytes: 9, piece: 8 };
        let sent = Sent { part: 0, id: "etag".into(), md5: "00".into() };
        let line = |value: &serde_json::Value| format!("{value}\n");
        let whole = line(&serde_json::to_value(&begun).unwrap()) + &line(&serde_json::to_value(&sent).unwrap());
        let told = |text: &str| read(text).map(|record| (record.begun, record.sent.len(), record.refused));
        assert_eq!(told(&whole), Some((begun.clone(), 1, 0)));
        assert_eq!(told(&whole[..whole.len() - 9]), Some((begun.clone(), 0, 0)));
        let refused = line(&serde_json::to_value(Refused { refused: "no".into() }).unwrap());
        assert_eq!(told(&(whole + &refused + &refused)), Some((begun, 1, 2)));
        assert!(read("{\"key\":").is_none() && read("").is_none());
    }
}
