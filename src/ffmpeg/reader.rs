//! Reads the pictures of a video file or HLS playlist, for reading back what was written.

use std::io::Write;
use std::os::fd::AsRawFd;

use ffmpeg_next as ff;

use super::{Scaler, Source, quiet, rows};
use crate::media::{Micros, Picture};

/// What FFmpeg conceals otherwise is an error.
const STRICT: ff::decoder::Check =
    ff::decoder::Check::EXPLODE.union(ff::decoder::Check::BITSTREAM).union(ff::decoder::Check::BUFFER);

/// Why a video cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// That path or URL cannot be opened, or is no video that FFmpeg knows; in FFmpeg's words.
    #[error("cannot open {0} as a video: {1}")]
    Open(String, ff::Error),
    /// That path or URL holds no video stream.
    #[error("{0} holds no video stream")]
    NoVideo(String),
    /// A picture in it is broken.
    #[error("{source_name}: after picture {pictures}: {why}")]
    Decode {
        /// Path or URL.
        source_name: String,
        /// How many pictures came before.
        pictures: u64,
        /// FFmpeg's words.
        why: ff::Error,
    },
}

/// Reads the pictures of a video file or HLS playlist, one by one, in the order they are shown.
pub struct PictureReader {
    source_name: String,
    input: ff::format::context::Input,
    stream: usize,
    time_base: ff::Rational,
    decoder: ff::decoder::Video,
    scaler: Option<Scaler>,
    pictures: u64,
    drained: bool,
    ended: bool,
    strict: bool,
}

impl PictureReader {
    /// Opens a path or URL (MP4, m3u8, whatever FFmpeg reads) at its best video stream. A playlist is read from its
    /// first segment, live or not. What FFmpeg can conceal is concealed.
    pub fn open(source: &str) -> Result<PictureReader, ReadError> {
        PictureReader::open_with(source, source, ff::decoder::Check::empty(), false)
    }

    /// As [`PictureReader::open`], but what FFmpeg would conceal is an error: for reading back one's own output. Pictures
    /// in front of the first IDR never come, so their number is the caller's to check.
    pub fn open_strict(source: &str) -> Result<PictureReader, ReadError> {
        PictureReader::open_with(source, source, STRICT, true)
    }

    /// As [`PictureReader::open_strict`], from memory: a whole file, or an init segment and a segment. `name` is what
    /// errors call it.
    pub fn open_bytes_strict(name: &str, bytes: &[u8]) -> Result<PictureReader, ReadError> {
        // FFmpeg reads files, and its `data:` protocol promises to seek and cannot: a file that is in memory only, which
        // FFmpeg opens for itself, so that it may be closed here.
        let file = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|fd| {
                let mut file = std::fs::File::from(fd);
                file.write_all(bytes)?;
                Ok(file)
            });
        let refused = |error: std::io::Error| {
            let errno = error.raw_os_error().unwrap_or(ff::error::EIO);
            ReadError::Open(name.to_owned(), ff::Error::Other { errno })
        };
        let file = file.map_err(refused)?;
        PictureReader::open_with(name, &format!("/proc/self/fd/{}", file.as_raw_fd()), STRICT, true)
    }

    fn open_with(
        name: &str,
        source: &str,
        check: ff::decoder::Check,
        strict: bool,
    ) -> Result<PictureReader, ReadError> {
        quiet();
        let refused = |why| ReadError::Open(name.to_owned(), why);
        // A zero byte in a path would be a panic inside ffmpeg-next.
        if source.contains('\0') {
            return Err(refused(ff::Error::Other { errno: ff::error::EINVAL }));
        }
        // Other demuxers leave this option alone.
        let options = [("live_start_index", "0")].iter().collect();
        let input = ff::format::input_with_dictionary(source, options).map_err(refused)?;
        let Some(best) = input.streams().best(ff::media::Type::Video) else {
            return Err(ReadError::NoVideo(name.to_owned()));
        };
        let (stream, time_base) = (best.index(), best.time_base());
        let mut decoder = ff::codec::Context::from_parameters(best.parameters()).map_err(refused)?.decoder();
        decoder.check(check);
        decoder.set_packet_time_base(time_base);
        let decoder = decoder.video().map_err(refused)?;
        Ok(PictureReader {
            source_name: name.to_owned(),
            input,
            stream,
            time_base,
            decoder,
            scaler: None,
            pictures: 0,
            drained: false,
            ended: false,
            strict,
        })
    }

    /// Luma samples in a row, by the stream's header; a picture may differ.
    pub fn width(&self) -> u32 {
        self.decoder.width()
    }

    /// Luma rows, by the stream's header; a picture may differ.
    pub fn height(&self) -> u32 {
        self.decoder.height()
    }

    fn read(&mut self) -> Result<Option<(Micros, Picture)>, ff::Error> {
        let mut shown = ff::frame::Video::empty();
        loop {
            match self.decoder.receive_frame(&mut shown) {
                Ok(()) => return self.take(&shown).map(Some),
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) if !self.drained => self.feed()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the decoder one packet, or the end.
    fn feed(&mut self) -> Result<(), ff::Error> {
        let mut packet = ff::Packet::empty();
        match packet.read(&mut self.input) {
            Ok(()) if packet.stream() != self.stream => Ok(()),
            Ok(()) => match self.decoder.send_packet(&packet) {
                Err(ff::Error::InvalidData) if !self.strict => Ok(()),
                sent => sent,
            },
            Err(ff::Error::Eof) => {
                self.drained = true;
                self.decoder.send_eof()
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, shown: &ff::frame::Video) -> Result<(Micros, Picture), ff::Error> {
        if self.strict && (shown.is_corrupt() || shown.has_decode_errors()) {
            return Err(ff::Error::InvalidData);
        }
        let pts = shown.timestamp().ok_or(ff::Error::InvalidData)?;
        let micros = i128::from(pts) * i128::from(self.time_base.numerator()) * 1_000_000
            / i128::from(self.time_base.denominator().max(1));
        let at = Micros(i64::try_from(micros).map_err(|_| ff::Error::InvalidData)?);
        let source = Source {
            format: shown.format(),
            width: shown.width(),
            height: shown.height(),
            full_range: shown.color_range() == ff::color::Range::JPEG,
        };
        // Some decoders give rows from the bottom up, with negative strides: swscale turns them.
        let upright = (0..shown.planes()).all(|plane| i32::try_from(shown.stride(plane)).is_ok());
        if source.format == ff::format::Pixel::YUV420P && !source.full_range && upright {
            return Ok((at, picture(shown)));
        }
        let wanted = (source, source.width, source.height);
        let scaler = match self.scaler.take() {
            Some(scaler) if scaler.definition() == wanted => scaler,
            _ => Scaler::new(source, source.width, source.height)?,
        };
        let scaler = self.scaler.insert(scaler);
        Ok((at, picture(scaler.scale(shown)?)))
    }
}

impl Iterator for PictureReader {
    /// When a picture is shown on the container's time line, and the picture as stored: no rotation, no square pixels
    /// made. Nothing comes after an error.
    type Item = Result<(Micros, Picture), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.read() {
            Ok(Some(next)) => {
                self.pictures += 1;
                Some(Ok(next))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(why) => {
                self.ended = true;
                Some(Err(ReadError::Decode { source_name: self.source_name.clone(), pictures: self.pictures, why }))
            }
        }
    }
}

/// Copies an I420 buffer of FFmpeg.
fn picture(shown: &ff::frame::Video) -> Picture {
    let mut data = Vec::with_capacity(Picture::bytes(shown.width(), shown.height()));
    for plane in 0..3 {
        rows(shown, plane).for_each(|row| data.extend_from_slice(row));
    }
    Picture::new(shown.width(), shown.height(), data)
}

#[cfg(test)]
mod tests {
    use super::super::{extradata, open_encoder};
    use super::*;

    const PICTURES: i64 = 7;

    /// Writes a video of 5 grey pictures a second that get brighter by 20, reordered (B pictures), starting at 2 s.
    fn write(path: &str, format: ff::format::Pixel, range: ff::color::Range) {
        quiet();
        let codec = ff::encoder::find_by_name("libx264").unwrap();
        let mut context = ff::codec::Context::new_with_codec(codec).encoder().video().unwrap();
        context.set_width(66);
        context.set_height(50);
        context.set_format(format);
        context.set_color_range(range);
        context.set_time_base((1, 5));
        context.set_flags(ff::codec::Flags::GLOBAL_HEADER);
        let options = [("bf", "2"), ("crf", "1"), ("x264-params", "b-adapt=0")].iter().collect();
        let (mut encoder, left) = open_encoder(context, codec, options).unwrap();
        assert!(left.is_empty() && !extradata(&encoder).is_empty());

        let mut output = ff::format::output(path).unwrap();
        let mut stream = output.add_stream(codec).unwrap();
        stream.set_parameters(&encoder);
        stream.set_time_base((1, 5));
        output.write_header().unwrap();
        let time_base = output.stream(0).unwrap().time_base();
        let mut drain = |encoder: &mut ff::encoder::video::Encoder| {
            let mut packet = ff::Packet::empty();
            while encoder.receive_packet(&mut packet).is_ok() {
                packet.set_stream(0);
                packet.set_duration(1);
                packet.rescale_ts((1, 5), time_base);
                packet.write_interleaved(&mut output).unwrap();
            }
        };
        for number in 0..PICTURES {
            let mut input = ff::frame::Video::new(format, 66, 50);
            (0..3).for_each(|plane| input.data_mut(plane).fill(if plane == 0 { 40 + 20 * number as u8 } else { 128 }));
            input.set_pts(Some(10 + number));
            encoder.send_frame(&input).unwrap();
            drain(&mut encoder);
        }
        encoder.send_eof().unwrap();
        drain(&mut encoder);
        output.write_trailer().unwrap();
    }

    #[test]
    fn pictures_come_in_order_with_their_times() {
        use ff::color::Range::{JPEG, MPEG};
        use ff::format::Pixel::{YUV420P, YUV444P};
        let dir = tempfile::tempdir().unwrap();
        for (name, format, range) in [
            ("plain.mp4", YUV420P, MPEG),
            ("list.m3u8", YUV420P, MPEG),
            ("444.mp4", YUV444P, MPEG),
            ("full.mp4", YUV420P, JPEG),
        ] {
            let path = dir.path().join(name).into_os_string().into_string().unwrap();
            write(&path, format, range);
            let reader = PictureReader::open_strict(&path).unwrap();
            assert_eq!((reader.width(), reader.height()), (66, 50));
            let shown: Vec<_> = reader.map(Result::unwrap).collect();
            let times: Vec<i64> = shown.iter().map(|(at, _)| at.0 - shown[0].0.0).collect();
            let from_memory = PictureReader::open_bytes_strict(name, &std::fs::read(&path).unwrap());
            if name.ends_with(".mp4") {
                assert_eq!(from_memory.unwrap().count(), shown.len());
            }
            assert_eq!(times, (0..PICTURES).map(|number| number * 200_000).collect::<Vec<_>>(), "{name}");
            if name == "plain.mp4" {
                assert_eq!(shown[0].0, Micros(2_000_000));
            }
            for (number, (_, picture)) in shown.iter().enumerate() {
                assert_eq!((picture.width(), picture.height()), (66, 50));
                let [y, u, v] = picture.planes();
                let stored = 40 + 20 * number as i32;
                let wanted = if range == JPEG { 16 + stored * 219 / 255 } else { stored };
                assert!(y.iter().all(|sample| (i32::from(*sample) - wanted).abs() <= 2), "{name}: picture {number}");
                assert!([u, v].into_iter().flatten().all(|sample| sample.abs_diff(128) <= 1), "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
        let error = |path: &str| PictureReader::open(path).err().unwrap().to_string();
        assert!(error(&path("none.mp4")).ends_with("none.mp4 as a video: No such file or directory"));
        std::fs::write(path("text.mp4"), "no video at all\n".repeat(100)).unwrap();
        assert!(error(&path("text.mp4")).contains("text.mp4 as a video: "));
        assert!(error("zero\0byte").contains("as a video: "));
    }

    #[test]
    fn a_damaged_picture_is_an_error_when_strict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.mp4").into_os_string().into_string().unwrap();
        write(&path, ff::format::Pixel::YUV420P, ff::color::Range::MPEG);
        let mut bytes = std::fs::read(&path).unwrap();
        let media = bytes.windows(4).position(|four| four == b"mdat").unwrap() + 4;
        // Past x264's text and the header of the first slice.
        let slice = bytes[media..]
            .windows(3)
            .position(|three| three[0] == 0 && three[2] == 0x65)
            .map_or(media + 720, |at| media + at);
        bytes[slice + 8..slice + 60].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let outcome: Result<Vec<_>, _> = PictureReader::open_strict(&path).unwrap().collect();
        let error = outcome.err().unwrap().to_string();
        assert!(error.contains("damaged.mp4: after picture "), "{error}");
        assert!(PictureReader::open(&path).unwrap().all(|picture| picture.is_ok()), "concealed when not strict");
    }
}
