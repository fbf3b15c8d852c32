// From a raw camera frame on the GPU to the model's input picture: Pillow's antialiased bilinear resize, bit for bit.
//
// One kernel filters along one axis and rounds to 8 bits, as Pillow does. Its first launch reads the frame and converts
// each pixel to RGB; a second one, along the other axis, reads what the first has written. Filters, and which axis comes
// first, come from runtime/resize/pillow_filter.py.
//
// The same source is plain C++ for the host, where a kernel is a loop over its pixels: so a test compares this very
// arithmetic with Pillow on machines that have no GPU. It includes nothing, hence compiles offline and on line alike.

#ifdef __CUDACC__
#define PER_PIXEL __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define FOR_EACH(x, width, y, height)                     \
    const int x = blockIdx.x * blockDim.x + threadIdx.x;  \
    const int y = blockIdx.y * blockDim.y + threadIdx.y;  \
    if (x < (width) && y < (height))
#else
#define PER_PIXEL inline
#define KERNEL extern "C" void
#define FOR_EACH(x, width, y, height)      \
    for (int y = 0; y < (height); ++y)     \
        for (int x = 0; x < (width); ++x)
#endif

namespace {

using Byte = unsigned char;

const int FRACTION_BITS = 32 - 8 - 2;
const int HALF = 1 << (FRACTION_BITS - 1);

// Numbered as PIXEL_FORMATS in runtime/engines/gpu_resize.py.
enum Format { BGR, RGB, GRAY, YUYV, NV12 };

struct Frame {
    const Byte* bytes;
    long long pitch;  // bytes from one row to the next
    int height;       // of the picture: NV12's chroma rows follow it

    PER_PIXEL const Byte* row(int y) const { return bytes + y * pitch; }
};

struct Rgb {
    int red, green, blue;
};

enum Axis { ROWS, COLUMNS };

PER_PIXEL int clipped(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// ITU-R BT.601, limited range, in OpenCV's integers of 20 fractional bits.
PER_PIXEL Rgb from_yuv(int luma, int chroma_blue, int chroma_red) {
    const int half = 1 << 19;
    const int y = (luma > 16 ? luma - 16 : 0) * 1220542;
    const int u = chroma_blue - 128;
    const int v = chroma_red - 128;
    return {clipped((y + 1673527 * v + half) >> 20),
            clipped((y - 852492 * v - 409993 * u + half) >> 20),
            clipped((y + 2116026 * u + half) >> 20)};
}

template <Format format>
PER_PIXEL Rgb pixel_at(const Frame& frame, int x, int y) {
    const Byte* row = frame.row(y);
    switch (format) {
        case BGR:
            return {row[3 * x + 2], row[3 * x + 1], row[3 * x]};
        case RGB:
            return {row[3 * x], row[3 * x + 1], row[3 * x + 2]};
        case GRAY:
            return {row[x], row[x], row[x]};
        case YUYV: {
            const Byte* pair = row + 4 * (x / 2);  // Y0 U Y1 V
            return from_yuv(pair[2 * (x % 2)], pair[1], pair[3]);
        }
        case NV12: {
            const Byte* chroma = frame.row(frame.height + y / 2) + 2 * (x / 2);  // U V, for two by two pixels
            return from_yuv(row[x], chroma[0], chroma[1]);
        }
    }
    return {};  // not reached
}

// The sum over `count` pixels from (x, y) on, along `axis`; their weights lie `stride` apart.
template <Format format>
PER_PIXEL Rgb filtered(const Frame& frame, Axis axis, int x, int y, int count, const int* weights, int stride) {
    Rgb sum = {HALF, HALF, HALF};
    for (int tap = 0; tap < count; ++tap) {
        const Rgb pixel = axis == ROWS ? pixel_at<format>(frame, x + tap, y) : pixel_at<format>(frame, x, y + tap);
        const int weight = weights[tap * stride];
        sum.red += pixel.red * weight;
        sum.green += pixel.green * weight;
        sum.blue += pixel.blue * weight;
    }
    return {clipped(sum.red >> FRACTION_BITS), clipped(sum.green >> FRACTION_BITS), clipped(sum.blue >> FRACTION_BITS)};
}

}  // namespace

// Filters along one axis of a frame, from (left, top) on, to `picture` [picture_height, picture_width, 3] RGB.
// One thread, one pixel. first, count: [side]; weights: [taps, side]; side: the picture's extent along the axis.
KERNEL resample(const Byte* bytes, int pitch, int height, int format, int left, int top, int axis, const int* first,
                const int* count, const int* weights, Byte* picture, int picture_width, int picture_height) {
    const Frame frame = {bytes, pitch, height};
    const int side = axis == ROWS ? picture_width : picture_height;
    FOR_EACH(x, picture_width, y, picture_height) {
        const int position = axis == ROWS ? x : y;
        const int from_x = left + (axis == ROWS ? first[x] : x);
        const int from_y = top + (axis == ROWS ? y : first[y]);
        const int taps = count[position];
        const int* own = weights + position;
        Rgb pixel = {};
        switch (format) {
            case BGR: pixel = filtered<BGR>(frame, Axis(axis), from_x, from_y, taps, own, side); break;
            case RGB: pixel = filtered<RGB>(frame, Axis(axis), from_x, from_y, taps, own, side); break;
            case GRAY: pixel = filtered<GRAY>(frame, Axis(axis), from_x, from_y, taps, own, side); break;
            case YUYV: pixel = filtered<YUYV>(frame, Axis(axis), from_x, from_y, taps, own, side); break;
            case NV12: pixel = filtered<NV12>(frame, Axis(axis), from_x, from_y, taps, own, side); break;
        }
        Byte* rgb = picture + (static_cast<long long>(y) * picture_width + x) * 3;
        rgb[0] = static_cast<Byte>(pixel.red);
        rgb[1] = static_cast<Byte>(pixel.green);
        rgb[2] = static_cast<Byte>(pixel.blue);
    }
}
