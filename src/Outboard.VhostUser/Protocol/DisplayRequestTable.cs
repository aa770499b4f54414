// Messages of the socket that GPU_SET_SOCKET hands over (the vhost-user-gpu protocol): the back-end asks, the front-end
// has the display. The header is the same, but has no version; updates carry pixels.
// Known for showing only: no device of this library draws.
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Protocol;

/// <summary>One message of a display connection.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Name">Its name as the specification spells it.</param>
/// <param name="Request">The fields of the request.</param>
/// <param name="Reply">The fields of the reply; null when it has none.</param>
public sealed record DisplayRequestRow(uint Id, string Name, FieldLayout Request, FieldLayout? Reply);

/// <summary>All messages of a display connection.</summary>
public static class DisplayRequestTable
{
    private static readonly FieldLayout s_rectangle =
        FieldLayout.Parse("scanout u32, x u32, y u32, width u32, height u32");

    private static readonly FieldLayout s_position = FieldLayout.Parse("scanout u32, x u32, y u32");

    private static readonly DisplayRequestRow[] s_rows =
    [
        new(1, "GPU_GET_PROTOCOL_FEATURES", FieldLayout.Empty, FieldLayout.Parse("features x64")),
        new(2, "GPU_SET_PROTOCOL_FEATURES", FieldLayout.Parse("features x64"), null),
        new(3, "GPU_GET_DISPLAY_INFO", FieldLayout.Empty, FieldLayout.Empty),
        new(4, "GPU_CURSOR_POS", s_position, null),
        new(5, "GPU_CURSOR_POS_HIDE", s_position, null),
        new(6, "GPU_CURSOR_UPDATE", FieldLayout.Parse("scanout u32, x u32, y u32, hot_x u32, hot_y u32"), null),
        new(7, "GPU_SCANOUT", FieldLayout.Parse("scanout u32, width u32, height u32"), null),
        new(8, "GPU_UPDATE", s_rectangle, null),
        new(9, "GPU_DMABUF_SCANOUT", Scanout(string.Empty), null),
        new(10, "GPU_DMABUF_UPDATE", s_rectangle, FieldLayout.Empty),
        new(11, "GPU_GET_EDID", FieldLayout.Parse("scanout u32"), FieldLayout.Empty),
        new(12, "GPU_DMABUF_SCANOUT2", Scanout(", modifier x64"), null),
    ];

    /// <summary>The row of a message; null when the number is unknown.</summary>
    public static DisplayRequestRow? Find(uint id) => Array.Find(s_rows, row => row.Id == id);

    private static FieldLayout Scanout(string more) => FieldLayout.Parse(
        "scanout u32, x u32, y u32, width u32, height u32, fd_width u32, fd_height u32, fd_stride u32, fd_flags x32, "
        + "fd_drm_fourcc x32" + more);
}
