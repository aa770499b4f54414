// A layout as data: the fields of a structure in order, written down as text, from which its bytes are shown by name.
// Message payloads and configuration spaces are described this way, once, for every tool that prints them.
//
//   "index u32, - u32, address x64, mtu u16 ?MTU"      name, type, and the feature without which it means nothing
//
//   uN iN xN   N = 8, 16, 32, 64: unsigned, signed, unsigned shown in hexadecimal    bN   N bits, from the lowest on
//   bytesN textN   N bytes, shown as hexadecimal digits or as text up to a zero; without N all that remain
//   mac uuid   6 and 16 bytes in their usual spelling          WORD WORD32   u64 or u32 whose bits have names, see Parse
//   The name "-" is padding. Fields follow each other without gaps.
//
// Numbers are little-endian, which is also the byte order of every host that this library runs on.
// Not here: writing fields. Values are shown, never acted upon.
using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace Outboard.Virtio.Spec;

/// <summary>How a field is shown.</summary>
public enum FieldKind
{
    /// <summary>Unsigned, decimal.</summary>
    Unsigned,

    /// <summary>Signed, decimal.</summary>
    Signed,

    /// <summary>Unsigned, hexadecimal.</summary>
    Hexadecimal,

    /// <summary>Bytes as hexadecimal digits.</summary>
    Bytes,

    /// <summary>Text up to the first zero.</summary>
    Text,

    /// <summary>A hardware address.</summary>
    Mac,

    /// <summary>A UUID, as its bytes stand.</summary>
    Uuid,

    /// <summary>Bits that have names.</summary>
    Bits,
}

/// <summary>Names the bits of a value, for a device of a type that may be unknown.</summary>
public delegate IEnumerable<string> BitNames(ulong value, VirtioDeviceId? device);

/// <summary>One field of a layout.</summary>
/// <param name="Name">Its name; "-" for padding.</param>
/// <param name="OffsetBits">Where it begins.</param>
/// <param name="SizeBits">Its size; -1 for all that remains.</param>
/// <param name="Kind">How it is shown.</param>
/// <param name="Gate">The feature without which it means nothing; null when it always means something.</param>
/// <param name="Names">What its bits are called.</param>
public sealed record FieldRow(
    string Name, int OffsetBits, int SizeBits, FieldKind Kind, string? Gate = null, BitNames? Names = null);

/// <summary>A field's value as it is shown.</summary>
/// <param name="Name">The field's name.</param>
/// <param name="Kind">How it is shown.</param>
/// <param name="Number">The value, when the kind is a number or bits.</param>
/// <param name="Text">The value as text, always there but for elements.</param>
/// <param name="Names">Names of the bits that are set.</param>
/// <param name="Elements">The values of an array's elements; null for a plain field.</param>
public sealed record FieldValue(
    string Name,
    FieldKind Kind,
    ulong Number,
    string Text,
    IReadOnlyList<string> Names,
    IReadOnlyList<IReadOnlyList<FieldValue>>? Elements = null);

/// <summary>The fields of a structure.</summary>
public sealed class FieldLayout
{
    private const int ByteBits = 8;
    private readonly FieldRow[] _rows;
    private readonly string? _restName;
    private readonly FieldLayout? _rest;

    private FieldLayout(FieldRow[] rows, string? restName, FieldLayout? rest)
    {
        _rows = rows;
        _restName = restName;
        _rest = rest;
    }

    /// <summary>No fields.</summary>
    public static FieldLayout Empty { get; } = new([], null, null);

    /// <summary>The fields, padding included.</summary>
    public IReadOnlyList<FieldRow> Rows => _rows;

    /// <summary>Bytes of the fields that have a size; elements come after them.</summary>
    public int SizeBytes { get; private init; }

    /// <summary>Bytes of one element of the array at the end; 0 without one.</summary>
    public int ElementBytes => _rest?.SizeBytes ?? 0;

    /// <summary>Reads a layout.</summary>
    /// <param name="text">The fields, in the notation at the top of this file.</param>
    /// <param name="words">Types of this layout: 64-bit values whose bits have names.</param>
    /// <exception cref="FormatException">It is none.</exception>
    public static FieldLayout Parse(string text, params (string Word, BitNames Names)[] words)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<FieldRow> rows = [];
        int bits = 0;
        const StringSplitOptions trimmed = StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries;
        foreach (string field in text.Split(',', trimmed))
        {
            string[] parts = field.Split(' ', trimmed);
            if (parts.Length is not (2 or 3) || (parts.Length == 3 && parts[2][0] != '?'))
            {
                throw new FormatException($"\"{field}\" is no field");
            }

            FieldRow row = Row(parts[0], parts[1], bits, words) with { Gate = parts.Length == 3 ? parts[2][1..] : null };
            rows.Add(row);
            bits += Math.Max(row.SizeBits, 0);
        }

        return bits % ByteBits == 0
            ? new FieldLayout([.. rows], null, null) { SizeBytes = bits / ByteBits }
            : throw new FormatException($"\"{text}\" ends within a byte");
    }

    /// <summary>This layout, followed by any number of elements.</summary>
    public FieldLayout FollowedBy(string name, FieldLayout element) =>
        new(_rows, name, element) { SizeBytes = SizeBytes };

    /// <summary>Shows the fields that lie within some bytes.</summary>
    /// <param name="bytes">The bytes, which may be too few or too many.</param>
    /// <param name="device">The type of the device, for names of its bits.</param>
    /// <param name="gates">
    /// Features that are there; fields of others are left out. Null shows every field.
    /// </param>
    public IReadOnlyList<FieldValue> Decode(
        ReadOnlySpan<byte> bytes, VirtioDeviceId? device = null, IReadOnlySet<string>? gates = null)
    {
        List<FieldValue> values = [];
        foreach (FieldRow row in _rows)
        {
            bool isShown = row.Name != "-" && (row.Gate is null || gates is null || gates.Contains(row.Gate));
            if (isShown && TrySlice(bytes, row, out ReadOnlySpan<byte> part))
            {
                values.Add(Show(row, part, device));
            }
        }

        if (_rest is { SizeBytes: > 0 } rest && bytes.Length > SizeBytes)
        {
            List<IReadOnlyList<FieldValue>> elements = [];
            for (int at = SizeBytes; at + rest.SizeBytes <= bytes.Length; at += rest.SizeBytes)
            {
                elements.Add(rest.Decode(bytes.Slice(at, rest.SizeBytes), device, gates));
            }

            values.Add(new FieldValue(_restName!, FieldKind.Bytes, 0, string.Empty, [], elements));
        }

        return values;
    }

    /// <summary>Bytes up to the end of the last field that means something.</summary>
    /// <param name="gates">Features that are there.</param>
    public int SizeWith(IReadOnlySet<string> gates) => _rows
        .Where(row => row.Name != "-" && row.SizeBits > 0 && (row.Gate is null || gates.Contains(row.Gate)))
        .Select(row => (row.OffsetBits + row.SizeBits) / ByteBits)
        .DefaultIfEmpty(0)
        .Max();

    private static FieldRow Row(string name, string type, int offset, (string Word, BitNames Names)[] words)
    {
        foreach ((string word, BitNames names) in words)
        {
            if (type.StartsWith(word, StringComparison.Ordinal) && type[word.Length..] is "" or "32")
            {
                int bits = type.Length == word.Length ? 64 : 32;
                return new FieldRow(name, offset, bits, FieldKind.Bits, Names: names);
            }
        }

        string digits = type.TrimStart([.. "abcdefghijklmnopqrstuvwxyz"]);
        bool isSized = int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out int size);
        string kind = type[..^digits.Length];
        bool isNumber = isSized && size is 8 or 16 or 32 or 64;
        return (kind, isSized) switch
        {
            ("u", _) when isNumber => new FieldRow(name, offset, size, FieldKind.Unsigned),
            ("i", _) when isNumber => new FieldRow(name, offset, size, FieldKind.Signed),
            ("x", _) when isNumber => new FieldRow(name, offset, size, FieldKind.Hexadecimal),
            ("b", true) when size is > 0 and <= 64 => new FieldRow(name, offset, size, FieldKind.Unsigned),
            ("bytes", true) => new FieldRow(name, offset, size * ByteBits, FieldKind.Bytes),
            ("bytes", false) => new FieldRow(name, offset, -1, FieldKind.Bytes),
            ("text", true) => new FieldRow(name, offset, size * ByteBits, FieldKind.Text),
            ("text", false) => new FieldRow(name, offset, -1, FieldKind.Text),
            ("mac", false) => new FieldRow(name, offset, 6 * ByteBits, FieldKind.Mac),
            ("uuid", false) => new FieldRow(name, offset, 16 * ByteBits, FieldKind.Uuid),
            _ => throw new FormatException($"\"{type}\" is no type"),
        };
    }

    private static bool TrySlice(ReadOnlySpan<byte> bytes, FieldRow row, out ReadOnlySpan<byte> part)
    {
        int start = row.OffsetBits / ByteBits;
        int end = row.SizeBits < 0 ? bytes.Length : (row.OffsetBits + row.SizeBits + ByteBits - 1) / ByteBits;
        bool fits = start <= end && end <= bytes.Length;
        part = fits ? bytes[start..end] : default;
        return fits;
    }

    private static FieldValue Show(FieldRow row, ReadOnlySpan<byte> part, VirtioDeviceId? device)
    {
        ulong number = row.SizeBits is > 0 and <= 64 ? Number(part, row) : 0;
        string text = row.Kind switch
        {
            FieldKind.Unsigned => number.ToString(CultureInfo.InvariantCulture),
            FieldKind.Signed => Extend(number, row.SizeBits).ToString(CultureInfo.InvariantCulture),
            FieldKind.Text => Encoding.UTF8.GetString(part[..Zero(part)]),
            FieldKind.Mac => string.Join(':', part.ToArray().Select(b => b.ToString("x2", CultureInfo.InvariantCulture))),
            FieldKind.Uuid => new Guid(part, bigEndian: true).ToString(),
            FieldKind.Bytes => Convert.ToHexStringLower(part),
            _ => $"0x{number:x}",
        };
        string[] names = row.Names is { } name ? [.. name(number, device)] : [];
        return new FieldValue(row.Name, row.Kind, number, text, names);
    }

    private static ulong Number(ReadOnlySpan<byte> part, FieldRow row)
    {
        Span<byte> bytes = stackalloc byte[2 * sizeof(ulong)];
        bytes.Clear();
        part.CopyTo(bytes);
        UInt128 number = BinaryPrimitives.ReadUInt128LittleEndian(bytes) >> (row.OffsetBits % ByteBits);
        return (ulong)(number & ((UInt128.One << row.SizeBits) - 1));
    }

    private static long Extend(ulong number, int bits) => (long)(number << (64 - bits)) >> (64 - bits);

    private static int Zero(ReadOnlySpan<byte> text) => text.IndexOf((byte)0) is >= 0 and int at ? at : text.Length;
}
