#!/usr/bin/env python3
"""What each x264 preset and single option costs and brings at 2 pictures a second: CPU per picture, and the bytes it
takes for equal SSIM (BD-rate; by VMAF too where FFmpeg has libvmaf), on webcam-like and on screen-like pictures.

    benches/encoder.py [--rounds N] [--crf A,B,C,D] [--only NAME;NAME] [--svg FILE] [CLIP ...]

Prints Markdown tables and draws them as a picture (benches/encoder.svg). Webcams are cut from the clips, drawn where
none is given; screens are drawn: slides, a page that scrolls, text that is typed. A picture that is shown again is not
among them, for the server encodes none of those. Needs ffmpeg with libx264 and a font, nothing else; about 10 minutes.

The options are those that src/pipeline/encode/x264.rs pins. A variant whose SPS or PPS differ from the default's cannot be
joined to it, and is marked. CPU is user + system time of ffmpeg less that of a run that encodes nothing, the least of
all rounds; the rounds go through all variants by turns.
"""

import argparse, math, os, random, re, subprocess, sys, tempfile

PINNED = "stitchable=1:8x8dct=1:ref=1:bframes=0:cabac=1:weightp=0:threads=1:lookahead-threads=1:sliced-threads=0:" \
         "rc-lookahead=0:sync-lookahead=0:mbtree=0:keyint=infinite:scenecut=0"
CELL = 12
DEFAULT = "superfast"
# Name, preset, and what stands behind the pinned options.
PRESETS = [(preset, preset, "chroma-qp-offset=2" if preset == "medium" else "")
           for preset in ("ultrafast", "superfast", "veryfast", "faster", "medium")]
SINGLE = ["subme=0", "subme=2", "subme=4:me=hex", "me=hex", "partitions=none", "partitions=i8x8", "partitions=i4x4",
          "partitions=p8x8,i8x8,i4x4", "no-deblock=1", "aq-mode=0", "aq-mode=2", "aq-mode=3", "aq-strength=0.6",
          "psy=0", "trellis=1:subme=2", "fast-pskip=0", "dct-decimate=0", "chroma-me=0", "merange=4",
          "deadzone-inter=28:deadzone-intra=16", "deadzone-inter=10:deadzone-intra=5", "deblock=-1,-1", "deblock=1,1",
          "subme=0:partitions=none", "subme=0:partitions=i8x8", "subme=0:partitions=i4x4",
          "subme=0:partitions=i4x4:no-deblock=1", "subme=0:aq-mode=0", "cabac=0", "8x8dct=0"]
FAST = ["aq-mode=1", "no-deblock=0", "subme=1", "partitions=i8x8,i4x4", "aq-mode=1:no-deblock=0",
        "aq-mode=1:no-deblock=0:partitions=i8x8", "aq-mode=1:no-deblock=0:partitions=i8x8:subme=1"]
# What others run: the preset with an IDR a cell, and nothing pinned.
PLAIN = "superfast as it is"
VARIANTS = PRESETS + [(PLAIN, "superfast", "")] + [(f"{DEFAULT} {o}", DEFAULT, o) for o in SINGLE] + [(f"ultrafast {o}", "ultrafast", o) for o in FAST]
WORDS = "the of and to in meeting second picture part segment track is that for with share screen plan budget quarter " \
        "release server latency median of every what we when revenue next steps owner date risk open done review".split()


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True)


def ffmpeg(*options):
    return run("ffmpeg", "-nostdin", "-hide_banner", "-y", *options)


class Material:
    """Pictures in a raw I420 file."""

    def __init__(self, name, folder, width, height):
        self.name, self.width, self.height = name, width, height
        self.path, self.bytes, self.pictures = f"{folder}/{name}.yuv", width * height * 3 // 2, 0

    def append(self, raw):
        with open(self.path, "ab") as file:
            file.write(raw)
        self.pictures += len(raw) // self.bytes

    def input(self):
        return ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{self.width}x{self.height}", "-framerate", "2",
                "-i", self.path]


def raw_of(folder, *options):
    ffmpeg("-v", "error", *options, "-f", "rawvideo", "-pix_fmt", "yuv420p", f"{folder}/raw")
    with open(f"{folder}/raw", "rb") as file:
        return file.read()


def webcams(folder, clips, most):
    """Pictures half a second apart; a short clip is gone through several times, from other instants on."""
    material, size = Material("webcam", folder, 640, 360), "scale=640:360:flags=bicubic"
    for clip in clips:
        raw = raw_of(folder, "-i", clip, "-vf", f"fps=10,{size}")
        step, count = material.bytes, len(raw) // material.bytes
        order = [n for phase in range(5) for n in range(phase, count, 5)][:most]
        material.append(b"".join(raw[n * step:(n + 1) * step] for n in order))
    if not clips:
        # Someone before a wall: a textured ground, a head that sways and nods, shoulders, the camera's noise.
        head = "lt(hypot(X-320-28*sin(N/3),(Y-150-9*sin(N/2))*0.8),88)"
        body = "lt(hypot((X-320-20*sin(N/3))*0.55,Y-420),170)"
        luma = f"if({head},150+40*sin(X/9)*sin(Y/7+N/4)+18*sin((X+Y)/3),if({body},70+25*sin(X/5)," \
               "95+X/8+30*sin(X/31)*cos(Y/17)))"
        drawn = f"geq=lum='{luma}':cb='if({head},110,126)':cr='if({head},150,128)'," \
                "noise=alls=7:allf=t+u:all_seed=7,format=yuv420p"
        material.append(raw_of(folder, "-f", "lavfi", "-i", f"color=gray:s=640x360:r=2:d={most / 2}", "-vf", drawn))
    return material


def page(folder, number):
    """A page of text three screens high, with a coloured title and a table's lines."""
    width, height, rng = 1280, 2160, random.Random(number)
    sizes = [13, 15, 18, 24]
    size = sizes[number % len(sizes)]
    lines = []
    while len(lines) * (size + 6) < height - 120:
        line = ""
        while len(line) * size * 0.6 < width - 260:
            line += rng.choice(WORDS) + " "
        lines.append(line if len(lines) % 9 else "")
    with open(f"{folder}/text", "w") as file:
        file.write("\n".join(lines))
    ground, ink = [("white", "0x202020"), ("0x1e1e1e", "0xd4d4d4"), ("0xfdf6e3", "0x0b3a6e"), ("white", "black")][number % 4]
    drawn = f"drawbox=0:0:iw:64:color=0x0b5cad@1:t=fill,drawtext=text='Section {number + 1}':fontsize=34:fontcolor=white:x=40:y=14," \
            f"drawtext=textfile={folder}/text:fontsize={size}:fontcolor={ink}:x=60:y=90:line_spacing=6," \
            "drawgrid=y=64:w=320:h=108:t=1:color=0x808080@0.4,format=yuv420p"
    return raw_of(folder, "-f", "lavfi", "-i", f"color={ground}:s={width}x{height}:r=1:d=1", "-frames:v", "1", "-vf", drawn)


def screens(folder):
    material, tall = Material("screen", folder, 1280, 720), 2160

    def window(page, top, shown=720):
        """Rows from `top` on; those below `shown` are empty paper."""
        planes, at = [], 0
        for width, step in ((1280, 1), (640, 2), (640, 2)):
            rows, first, count = tall // step, top // step, 720 // step
            plane = bytearray(page[at + first * width:at + (first + count) * width])
            paper = plane[0:0] if shown >= 720 else page[at + (tall - 8) // step * width:][:width]
            for row in range(shown // step, count):
                plane[row * width:(row + 1) * width] = paper
            planes.append(bytes(plane))
            at += rows * width
        return b"".join(planes)

    pages = [page(folder, number) for number in range(6)]
    for number, text in enumerate(pages):
        material.append(window(text, number * 40))
        if number % 3 == 0:
            for step in range(8):
                material.append(window(text, 2 * (number * 20 + 18 * (step + 1))))
        if number % 3 == 1:
            for step in range(10):
                material.append(window(text, 0, 200 + 42 * step))
    return material


def headers(path):
    with open(path, "rb") as file:
        nals = re.split(b"\0\0\0?\1", file.read(4096))
    return [nal for nal in nals if nal and nal[0] & 31 in (7, 8)][:2]


def encode(material, folder, variant, crf):
    """Encodes; gives bytes a picture, CPU seconds and the parameter sets."""
    out = f"{folder}/out.h264"
    if variant is None:
        options = ["-f", "null", "-"]
    else:
        _, preset, more = variant
        pinned = "scenecut=0" if variant[0] == PLAIN else f"{PINNED}:qpmin={crf - 3}"
        params = pinned + (f":{more}" if more else "")
        options = ["-c:v", "libx264", "-preset", preset, "-tune", "zerolatency", "-crf", str(crf), "-level", "3.1",
                   "-forced-idr", "1", "-force_key_frames", f"expr:eq(mod(n,{CELL}),0)", "-x264-params", params, "-f", "h264", out]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *material.input(), *options]
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    seconds = used.ru_utime + used.ru_stime
    return (0, seconds, None) if variant is None else (os.path.getsize(out) / material.pictures, seconds, headers(out))


def quality(material, folder, vmaf):
    """SSIM in dB (and VMAF) of what was encoded last."""
    def measure(name):
        return ffmpeg("-r", "2", "-i", f"{folder}/out.h264", *material.input(), "-lavfi", name, "-f", "null", "-").stderr
    ssim = float(re.search(r"SSIM .*All:([0-9.]+)", measure("ssim"))[1])
    score = float(re.search(r"VMAF score: ([0-9.]+)", measure("libvmaf"))[1]) if vmaf else None
    return -10 * math.log10(1 - ssim), score


def bd_rate(base, other):
    """Per cent more bytes at equal quality (Bjontegaard): cubics through four points of quality and log(bytes)."""
    def cubic(points, x):
        return sum(math.log(y) * math.prod((x - b) / (a - b) for b, _ in points if b != a) for a, y in points)
    low = max(min(q for q, _ in base), min(q for q, _ in other))
    high = min(max(q for q, _ in base), max(q for q, _ in other))
    if high <= low:
        return math.nan
    steps = [low + (high - low) * n / 200 for n in range(201)]
    mean = sum(cubic(other, x) - cubic(base, x) for x in steps) / len(steps)
    return (math.exp(mean) - 1) * 100


def measure(material, folder, args, vmaf):
    """CPU in ms a picture, (quality, bytes) points and headers of every variant."""
    variants = [v for v in VARIANTS if not args.only or v[0] == DEFAULT or v[0] in args.only.split(";")]
    found = {v[0]: {"cpu": {}, "ssim": [], "vmaf": [], "headers": None, "at": None} for v in variants}
    idle = math.inf
    for turn in range(args.rounds):
        for crf in args.crf:
            idle = min(idle, encode(material, folder, None, crf)[1])
            for variant in variants:
                one = found[variant[0]]
                size, seconds, one["headers"] = encode(material, folder, variant, crf)
                one["cpu"][crf] = min(one["cpu"].get(crf, math.inf), seconds)
                if turn == 0:
                    ssim, score = quality(material, folder, vmaf)
                    one["ssim"].append((ssim, size))
                    one["vmaf"].append((score, size))
                    if crf == 23:
                        one["at"] = (size, ssim)
        print(f"{material.name}: round {turn + 1} of {args.rounds}", file=sys.stderr)
    for one in found.values():
        one["by_crf"] = [(one["cpu"][crf] - idle) * 1000 / material.pictures for crf in args.crf]
        one["ms"] = sum(cpu - idle for cpu in one["cpu"].values()) / len(one["cpu"]) * 1000 / material.pictures
    return found


def table(material, found, crfs, vmaf):
    base = found[DEFAULT]
    sizes = [size for _, size in base["ssim"]]
    print(f"\n{material.name}, {material.width}x{material.height}, {material.pictures} pictures\n")
    print("| options | CPU, ms | of the default | BD-rate by SSIM" + (" | by VMAF" if vmaf else "") +
          " | bytes, SSIM at crf 23 | headers |")
    print("|---|---|---|---" + ("|---" if vmaf else "") + "|---|---|")
    for name, one in found.items():
        one["rate"] = bd_rate(base["ssim"], one["ssim"])
        by_vmaf = f" | {bd_rate(base['vmaf'], one['vmaf']):+.1f} %" if vmaf else ""
        size, ssim = one["at"] or (math.nan, math.nan)
        same = "same" if one["headers"] == base["headers"] else "differ"
        print(f"| {name} | {one['ms']:.2f} | {one['ms'] / base['ms']:.2f} | {one['rate']:+.1f} %{by_vmaf} | "
              f"{size:.0f}, {ssim:.2f} dB | {same} |")
    each = [f"crf {crf}: {ms:.2f} ms, {bytes:.0f} bytes" for crf, ms, bytes in zip(crfs, base["by_crf"], sizes)]
    print(f"\n{DEFAULT} at {'; '.join(each)}")


def draw(path, drawn):
    """One panel a material: CPU across in octaves, BD-rate upwards (worse). What is where the default is has no name."""
    width, height, left, top = 760, 420, 70, 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{len(drawn) * height}" '
           'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    for panel, (material, found) in enumerate(drawn):
        y0, base = panel * height, found[DEFAULT]
        shown = {name: one for name, one in found.items() if one["rate"] < 80}
        octaves = [math.log2(one["ms"]) for one in shown.values()]
        first, last = min(octaves) - 0.2, max(octaves) + 0.6
        rates = [one["rate"] for one in shown.values()]
        low, high = min(rates) - 5, max(rates) + 5
        x = lambda ms: left + (width - left - 20) * (math.log2(ms) - first) / (last - first)
        y = lambda rate: y0 + top + (height - top - 50) * (high - rate) / (high - low)
        out.append(f'<text x="{left}" y="{y0 + 22}" font-size="14">{material}: bytes at equal SSIM over CPU, against '
                   f'{DEFAULT} (red); grey: other parameter sets</text>')
        for rate in range(math.ceil(low / 10) * 10, int(high) + 1, 10):
            out.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="#ddd"/>'
                       f'<text x="{left - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:+d} %</text>')
        for ms in (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32):
            if first <= math.log2(ms) <= last:
                out.append(f'<text x="{x(ms):.1f}" y="{y0 + height - 30}" text-anchor="middle">{ms:g}</text>')
        out.append(f'<text x="{width / 2}" y="{y0 + height - 12}" text-anchor="middle">CPU per picture, ms</text>')
        for name, one in shown.items():
            colour = "#c00" if name == DEFAULT else "#06c" if one["headers"] == base["headers"] else "#999"
            out.append(f'<circle cx="{x(one["ms"]):.1f}" cy="{y(one["rate"]):.1f}" r="3.5" fill="{colour}"/>')
            if name == DEFAULT or abs(one["rate"]) > 2.5 or abs(one["ms"] / base["ms"] - 1) > 0.2:
                out.append(f'<text x="{x(one["ms"]) + 6:.1f}" y="{y(one["rate"]) + 3:.1f}" font-size="9" fill="{colour}">'
                           f'{name.removeprefix(DEFAULT + " ")}</text>')
    out.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crf", type=lambda text: [int(n) for n in text.split(",")], default=[20, 23, 26, 29])
    parser.add_argument("--only", help="the default and these variants, a semicolon between")
    parser.add_argument("--most", type=int, default=60, help="pictures of a clip")
    parser.add_argument("--svg", default=os.path.join(os.path.dirname(__file__), "encoder.svg"))
    parser.add_argument("clips", nargs="*", metavar="CLIP")
    args = parser.parse_args()
    vmaf = " libvmaf " in run("ffmpeg", "-hide_banner", "-filters").stdout
    print(ffmpeg("-version").stdout.splitlines()[0] + ("" if vmaf else "; no libvmaf in it"))
    with tempfile.TemporaryDirectory() as folder:
        drawn = []
        for material in (webcams(folder, args.clips, args.most), screens(folder)):
            found = measure(material, folder, args, vmaf)
            table(material, found, args.crf, vmaf)
            drawn.append((material.name, found))
        draw(args.svg, drawn)


if __name__ == "__main__":
    main()
