//! Decides how a drawing looks on a terminal: frames of line characters, one cell for each CPU, a legend below.

use super::canvas::{Canvas, Line};
use super::layout::{FramePlace, Layout, Metrics, Size, lay_out};
use super::palette::Ink;
use super::scene::{Frame, Meaning, Role, Scene, Thread, Tile, counted};

/// The narrowest sheet on which anything can be drawn.
pub const NARROWEST: usize = 40;
/// The most lines of frames with a number in every cell; larger machines show marks only, and lists of CPUs by cache.
const MOST_LINES: usize = 36;

/// The drawing in lines of at most `width` characters.
pub fn lines(scene: &Scene, width: usize) -> Vec<Line> {
    let width = width.max(NARROWEST);
    let mut lines = Vec::new();
    if !scene.name.is_empty() {
        lines.push(Line::of(Ink::Bold, &scene.name));
    }
    lines.extend(wrapped(&scene.summary, " · ", width).iter().map(|part| Line::of(Ink::Plain, part)));
    lines.push(Line::default());
    lines.extend(sheet(scene, width));
    lines.push(Line::default());
    lines.extend(offline(scene, width));
    lines.extend(legend(scene, width));
    lines
}

/// Whether cells hold the number of their CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cells {
    Numbers,
    MarksOnly,
}

fn sheet(scene: &Scene, width: usize) -> Vec<Line> {
    let numbers = lay_out(&scene.shape(), &metrics(scene, Cells::Numbers, width));
    if numbers.size.y <= MOST_LINES && numbers.size.x <= width {
        return paint(scene, Cells::Numbers, &numbers);
    }
    let marks = lay_out(&scene.shape(), &metrics(scene, Cells::MarksOnly, width));
    paint(scene, Cells::MarksOnly, &marks)
}

fn cell_width(scene: &Scene, cells: Cells) -> usize {
    match cells {
        Cells::Numbers => scene.digits() + scene.mark_width() + 3,
        Cells::MarksOnly => scene.mark_width(),
    }
}

fn metrics(scene: &Scene, cells: Cells, width: usize) -> Metrics {
    let threads = scene.threads_per_core();
    let titles = scene.frames.iter().flat_map(|frame| &frame.tiles).map(|tile| tile.title.chars().count());
    let (title_lines, least) = match cells {
        Cells::Numbers => (1, 0),
        Cells::MarksOnly => (2, 13),
    };
    let frame_titles = scene.frames.iter().map(|frame| frame.title.chars().count() + 6);
    Metrics {
        width,
        core: Size { x: cell_width(scene, cells), y: threads },
        core_gap: Size { x: 1, y: usize::from(threads > 1) },
        tile_edge: Size { x: 0, y: title_lines },
        tile_least: titles.max().unwrap_or_default().max(least),
        tile_gap: Size { x: 3, y: 1 },
        frame_edge: Size { x: 4, y: 2 },
        frame_least: frame_titles.max().unwrap_or_default(),
        frame_gap: Size { x: 2, y: 0 },
    }
}

fn paint(scene: &Scene, cells: Cells, layout: &Layout) -> Vec<Line> {
    let mut canvas = Canvas::new(layout.size);
    for (frame, place) in scene.frames.iter().zip(&layout.frames) {
        border(&mut canvas, frame, place);
        for (tile, (at, size)) in frame.tiles.iter().zip(&place.tiles) {
            let at = Size { x: place.at.x + 2 + at.x, y: place.at.y + 1 + at.y };
            paint_tile(&mut canvas, scene, cells, layout.columns, tile, (at, *size));
        }
    }
    canvas.into_lines()
}

fn border(canvas: &mut Canvas, frame: &Frame, place: &FramePlace) {
    let FramePlace { at, size, tiles: _ } = place;
    let title = format!(" {} ", frame.title);
    let rest = size.x.saturating_sub(title.chars().count() + 3);
    canvas.write(*at, Ink::Faint, "╭─");
    canvas.write(Size { x: at.x + 2, y: at.y }, Ink::Bold, &title);
    canvas.write(Size { x: at.x + 2 + title.chars().count(), y: at.y }, Ink::Faint, &format!("{}╮", "─".repeat(rest)));
    for y in at.y + 1..at.y + size.y - 1 {
        canvas.write(Size { x: at.x, y }, Ink::Faint, "│");
        canvas.write(Size { x: at.x + size.x - 1, y }, Ink::Faint, "│");
    }
    let bottom = format!("╰{}╯", "─".repeat(size.x - 2));
    canvas.write(Size { x: at.x, y: at.y + size.y - 1 }, Ink::Faint, &bottom);
}

fn paint_tile(canvas: &mut Canvas, scene: &Scene, cells: Cells, columns: usize, tile: &Tile, (at, size): (Size, Size)) {
    canvas.write(at, Ink::Faint, &tile.title);
    let mut top = at.y + 1;
    if cells == Cells::MarksOnly {
        canvas.write(Size { x: at.x, y: top }, Ink::Faint, &shortened(&tile.cpus.to_string(), size.x));
        top += 1;
    }
    let cell = cell_width(scene, cells);
    let threads = scene.threads_per_core();
    for (index, core) in tile.cores.iter().enumerate() {
        let (band, column) = (index / columns, index % columns);
        for (row, thread) in core.iter().enumerate() {
            let y = top + band * (threads + usize::from(threads > 1)) + row;
            canvas.write(Size { x: at.x + column * (cell + 1), y }, ink(&thread.role), &text_of(scene, cells, thread));
        }
    }
}

fn text_of(scene: &Scene, cells: Cells, thread: &Thread) -> String {
    let (digits, width) = (scene.digits(), scene.mark_width());
    let mark = scene.mark(&thread.role);
    match cells {
        Cells::Numbers => format!(" {:>digits$} {mark:<width$} ", thread.cpu),
        Cells::MarksOnly => format!("{mark:<width$}"),
    }
}

fn ink(role: &Role) -> Ink {
    match role {
        Role::Slices(slices) => slices.first().map_or(Ink::Plain, |slice| Ink::Slice(*slice)),
        Role::Idle(slice) => Ink::Idle(*slice),
        Role::Housekeeping => Ink::Kept,
        Role::Isolated | Role::Pods | Role::Free => Ink::Faint,
        Role::Offline(_) => Ink::Off,
    }
}

fn offline(scene: &Scene, width: usize) -> Vec<Line> {
    if scene.offline.is_empty() {
        return Vec::new();
    }
    let cell = cell_width(scene, Cells::Numbers) + 1;
    let per_line = (width.saturating_sub(9) / cell).max(1);
    let mut lines: Vec<Line> = Vec::new();
    for chunk in scene.offline.chunks(per_line) {
        let mut line = Line::of(Ink::Plain, if lines.is_empty() { "offline  " } else { "         " });
        for thread in chunk {
            line.push(Ink::Off, &text_of(scene, Cells::Numbers, thread));
            line.push(Ink::Plain, " ");
        }
        lines.push(line);
    }
    lines.push(Line::default());
    lines
}

fn legend(scene: &Scene, width: usize) -> Vec<Line> {
    let longest = |texts: &mut dyn Iterator<Item = String>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let mark = longest(&mut scene.legend.iter().map(|meaning| scene.mark(&meaning.role)));
    let name = longest(&mut scene.legend.iter().map(|meaning| meaning.name.clone()));
    let cores = longest(&mut scene.legend.iter().map(cores_text));
    let cpus = longest(&mut scene.legend.iter().map(cpus_text));
    let note = longest(&mut scene.legend.iter().map(|meaning| meaning.note.clone()));
    let note = if note == 0 { 0 } else { note + 2 };
    let indent = mark + 4 + name + 2 + cores + 2 + cpus + 2 + note;
    let mut lines = Vec::new();
    for meaning in &scene.legend {
        let mut line = Line::default();
        line.push(ink(&meaning.role), &format!(" {:<mark$} ", scene.mark(&meaning.role)));
        line.push(Ink::Plain, &format!("  {:<name$}  ", meaning.name));
        line.push(Ink::Plain, &format!("{:>cores$}  {:>cpus$}  ", cores_text(meaning), cpus_text(meaning)));
        line.push(Ink::Faint, &format!("{:<note$}", meaning.note));
        let list = meaning.cpus.to_string();
        let room = width.saturating_sub(indent);
        // A list that finds no room beside its line stands below it.
        let (beside, hanging) = if room >= 16 { (true, indent) } else { (false, mark + 4) };
        let parts = wrapped(&list, ",", width - hanging);
        for (index, part) in parts.iter().enumerate() {
            if index > 0 || !beside {
                lines.push(std::mem::replace(&mut line, Line::of(Ink::Plain, &" ".repeat(hanging))));
            }
            line.push(Ink::Plain, part);
        }
        lines.push(line);
    }
    lines
}

fn cores_text(meaning: &Meaning) -> String {
    match meaning.role {
        Role::Offline(_) => String::new(),
        Role::Slices(_) | Role::Idle(_) | Role::Housekeeping | Role::Isolated | Role::Pods | Role::Free => {
            counted(meaning.cores, "core", "cores")
        }
    }
}

fn cpus_text(meaning: &Meaning) -> String {
    counted(meaning.cpus.len(), "CPU", "CPUs")
}

/// The text cut to lines of at most `width` characters, after separators where there are any.
pub fn wrapped(text: &str, separator: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in text.split_inclusive(separator) {
        let last = lines.len() - 1;
        let taken = lines[last].chars().count();
        if taken > 0 && taken + part.trim_end().chars().count() > width {
            lines.push(part.to_owned());
        } else {
            lines[last].push_str(part);
        }
    }
    lines
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
