//! Decides where things stand in a drawing: cores in tiles (one per cache), tiles in frames (one per NUMA node), frames
//! on the sheet, so that the whole is as low as the width allows. Counts characters or pixels alike.

/// The measures of a sheet, in characters or pixels.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// The widest that the sheet may be.
    pub width: usize,
    /// The width of a core.
    pub core: usize,
    /// Between cores side by side.
    pub core_gap: usize,
    /// Around the cores of a tile: left and right together, title and bottom together.
    pub tile_edge: Size,
    /// The narrowest tile.
    pub tile_least: usize,
    /// Between tiles.
    pub tile_gap: Size,
    /// Around the tiles of a frame: left and right together, title and bottom together.
    pub frame_edge: Size,
    /// The narrowest frame.
    pub frame_least: usize,
    /// Between frames.
    pub frame_gap: Size,
}

/// The cores of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// How many.
    pub cores: usize,
    /// The height of one with all its threads.
    pub height: usize,
    /// Between bands of them.
    pub gap: usize,
}

/// Width and height, or a distance in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Across.
    pub x: usize,
    /// Down.
    pub y: usize,
}

/// Where everything stands, by frame and tile in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The whole sheet.
    pub size: Size,
    /// How many cores stand side by side in a tile.
    pub columns: usize,
    /// The frames.
    pub frames: Vec<FramePlace>,
}

/// Where one frame stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Its upper left corner.
    pub at: Size,
    /// Its extent.
    pub size: Size,
    /// Its tiles: upper left corner relative to the room inside the frame, and extent.
    pub tiles: Vec<(Size, Size)>,
}

/// The lowest layout of frames with such tiles. One whose last bands are ragged must be lower by a quarter;
/// among equals the longest bands win.
pub fn lay_out(frames: &[Vec<Block>], metrics: &Metrics) -> Layout {
    let most_cores = frames.iter().flatten().map(|block| block.cores).max().unwrap_or(1).max(1);
    let most_tiles = frames.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let bands = 1..=most_cores.min(64);
    let mut columns: Vec<usize> = bands.map(|bands| most_cores.div_ceil(bands)).collect();
    columns.dedup();
    let mut best: Option<((usize, usize), Layout)> = None;
    for columns in columns {
        for tiles_per_row in 1..=most_tiles {
            let layout = arrange(frames, metrics, columns, tiles_per_row);
            let fits = layout.size.x <= metrics.width;
            let ragged = frames.iter().flatten().any(|block| block.cores > columns && block.cores % columns > 0);
            let cost = (layout.size.y * if ragged { 5 } else { 4 }, layout.size.x);
            if fits && best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, layout));
            }
        }
    }
    best.map_or_else(|| arrange(frames, metrics, 1, 1), |(_, layout)| layout)
}

fn arrange(frames: &[Vec<Block>], metrics: &Metrics, columns: usize, tiles_per_row: usize) -> Layout {
    let tile = |Block { cores, height, gap }: Block| {
        let bands = cores.div_ceil(columns).max(1);
        let inner = span(bands, height, gap);
        let wide = span(columns.min(cores.max(1)), metrics.core, metrics.core_gap);
        Size { x: (wide + metrics.tile_edge.x).max(metrics.tile_least), y: inner + metrics.tile_edge.y }
    };
    let widest = frames.iter().flatten().map(|block| tile(*block).x).max().unwrap_or(metrics.tile_least);
    let mut places: Vec<FramePlace> =
        frames.iter().map(|tiles| frame(tiles, &tile, widest, tiles_per_row, metrics)).collect();
    let width = places.iter().map(|place| place.size.x).max().unwrap_or_default();
    let per_row = ((metrics.width + metrics.frame_gap.x) / (width + metrics.frame_gap.x)).max(1);
    let mut top = 0;
    let mut size = Size::default();
    for row in places.chunks_mut(per_row) {
        let height = row.iter().map(|place| place.size.y).max().unwrap_or_default();
        for (index, place) in row.iter_mut().enumerate() {
            place.at = Size { x: index * (width + metrics.frame_gap.x), y: top };
            place.size = Size { x: width, y: height };
            size = Size { x: size.x.max(place.at.x + width), y: top + height };
        }
        top += height + metrics.frame_gap.y;
    }
    Layout { size, columns, frames: places }
}

fn frame(
    tiles: &[Block],
    tile: &impl Fn(Block) -> Size,
    widest: usize,
    tiles_per_row: usize,
    metrics: &Metrics,
) -> FramePlace {
    let mut places = Vec::new();
    let mut top = 0;
    for row in tiles.chunks(tiles_per_row) {
        let height = row.iter().map(|block| tile(*block).y).max().unwrap_or_default();
        let left = |index: usize| index * (widest + metrics.tile_gap.x);
        let alone = tiles.len() == 1;
        let wide = |block: Block| if alone { tile(block).x } else { widest };
        places.extend(
            row.iter()
                .enumerate()
                .map(|(index, block)| (Size { x: left(index), y: top }, Size { x: wide(*block), y: height })),
        );
        top += height + metrics.tile_gap.y;
    }
    let inner = Size {
        x: places.iter().map(|(at, size)| at.x + size.x).max().unwrap_or_default(),
        y: top.saturating_sub(metrics.tile_gap.y),
    };
    let size = Size { x: (inner.x + metrics.frame_edge.x).max(metrics.frame_least), y: inner.y + metrics.frame_edge.y };
    FramePlace { at: Size::default(), size, tiles: places }
}

/// The length of so many things side by side.
pub fn span(count: usize, length: usize, gap: usize) -> usize {
    count * length + count.saturating_sub(1) * gap
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTERS: Metrics = Metrics {
        width: 80,
        core: 1,
        core_gap: 1,
        tile_edge: Size { x: 0, y: 2 },
        tile_least: 11,
        tile_gap: Size { x: 3, y: 1 },
        frame_edge: Size { x: 4, y: 2 },
        frame_least: 20,
        frame_gap: Size { x: 1, y: 0 },
    };

    /// Frames of tiles with so many cores of two threads.
    fn frames(cores: &[&[usize]]) -> Vec<Vec<Block>> {
        let block = |cores: &usize| Block { cores: *cores, height: 2, gap: 1 };
        cores.iter().map(|tiles| tiles.iter().map(block).collect()).collect()
    }

    fn overlap(one: (Size, Size), other: (Size, Size)) -> bool {
        let ((a, a_size), (b, b_size)) = (one, other);
        a.x < b.x + b_size.x && b.x < a.x + a_size.x && a.y < b.y + b_size.y && b.y < a.y + a_size.y
    }

    #[test]
    fn twelve_caches_of_eight_cores_stand_two_by_six_on_eighty_columns() {
        let layout = lay_out(&frames(&[&[8; 12], &[8; 12]]), &LETTERS);
        assert_eq!(layout.columns, 8);
        assert_eq!(layout.frames[0].tiles[2].0, Size { x: 0, y: 5 });
        assert_eq!(layout.frames[1].at, Size { x: 38, y: 0 });
        assert_eq!(layout.size, Size { x: 75, y: 31 });
    }

    #[test]
    fn a_wide_sheet_has_frames_side_by_side() {
        let layout = lay_out(&frames(&[&[8; 12], &[8; 12]]), &Metrics { width: 160, ..LETTERS });
        assert_eq!(layout.frames[1].at, Size { x: 74, y: 0 });
        assert_eq!(layout.size.y, 16);
    }

    #[test]
    fn nothing_overlaps_and_nothing_is_cut_off() {
        let sheets: [&[&[usize]]; 5] =
            [&[&[4]], &[&[28], &[28]], &[&[3, 3], &[3, 3], &[]], &[&[1; 34]], &[&[128], &[7, 1]]];
        let sheets = sheets.map(frames);
        for width in [40, 80, 120, 200, 300] {
            for frames in &sheets {
                let layout = lay_out(frames, &Metrics { width, ..LETTERS });
                assert!(layout.size.x <= width, "{frames:?} on {width} takes {}", layout.size.x);
                for (index, place) in layout.frames.iter().enumerate() {
                    let room = Size { x: place.size.x - LETTERS.frame_edge.x, y: place.size.y - LETTERS.frame_edge.y };
                    let inside = |(at, size): &(Size, Size)| at.x + size.x <= room.x && at.y + size.y <= room.y;
                    assert!(place.tiles.iter().all(inside), "{frames:?} on {width}");
                    let others = layout.frames.iter().skip(index + 1);
                    assert!(others.into_iter().all(|other| !overlap((place.at, place.size), (other.at, other.size))));
                    for (index, tile) in place.tiles.iter().enumerate() {
                        assert!(place.tiles.iter().skip(index + 1).all(|other| !overlap(*tile, *other)));
                    }
                }
            }
        }
    }
}
