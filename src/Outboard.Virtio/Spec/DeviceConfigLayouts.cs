// Configuration spaces of all device types by their fields, for people: the "Device configuration layout" of each
// device in virtio-v1.3 "5 Device Types". Behind "?" stands the feature without which a field means nothing.
namespace Outboard.Virtio.Spec;

/// <summary>Layouts of configuration spaces.</summary>
public static class DeviceConfigLayouts
{
    private static readonly Dictionary<VirtioDeviceId, FieldLayout> s_layouts = new()
    {
        [VirtioDeviceId.Network] = FieldLayout.Parse(
            "mac mac ?MAC, status u16 ?STATUS, max_virtqueue_pairs u16 ?MQ, mtu u16 ?MTU, speed u32 ?SPEED_DUPLEX, "
            + "duplex u8 ?SPEED_DUPLEX, rss_max_key_size u8 ?RSS, rss_max_indirection_table_length u16 ?RSS, "
            + "supported_hash_types x32 ?RSS, supported_tunnel_types x32 ?HASH_TUNNEL"),
        [VirtioDeviceId.Block] = FieldLayout.Parse(
            "capacity u64, size_max u32 ?SIZE_MAX, seg_max u32 ?SEG_MAX, cylinders u16 ?GEOMETRY, heads u8 ?GEOMETRY, "
            + "sectors u8 ?GEOMETRY, blk_size u32 ?BLK_SIZE, physical_block_exp u8 ?TOPOLOGY, "
            + "alignment_offset u8 ?TOPOLOGY, min_io_size u16 ?TOPOLOGY, opt_io_size u32 ?TOPOLOGY, "
            + "writeback u8 ?CONFIG_WCE, - u8, num_queues u16 ?MQ, max_discard_sectors u32 ?DISCARD, "
            + "max_discard_seg u32 ?DISCARD, discard_sector_alignment u32 ?DISCARD, "
            + "max_write_zeroes_sectors u32 ?WRITE_ZEROES, max_write_zeroes_seg u32 ?WRITE_ZEROES, "
            + "write_zeroes_may_unmap u8 ?WRITE_ZEROES, - bytes3, max_secure_erase_sectors u32 ?SECURE_ERASE, "
            + "max_secure_erase_seg u32 ?SECURE_ERASE, secure_erase_sector_alignment u32 ?SECURE_ERASE, "
            + "zone_sectors u32 ?ZONED, max_open_zones u32 ?ZONED, max_active_zones u32 ?ZONED, "
            + "max_append_sectors u32 ?ZONED, write_granularity u32 ?ZONED, model u8 ?ZONED, - bytes3"),
        [VirtioDeviceId.Console] = FieldLayout.Parse(
            "cols u16 ?SIZE, rows u16 ?SIZE, max_nr_ports u32 ?MULTIPORT, emerg_wr u32 ?EMERG_WRITE"),
        [VirtioDeviceId.Entropy] = FieldLayout.Empty,
        [VirtioDeviceId.Balloon] = FieldLayout.Parse(
            "num_pages u32, actual u32, free_page_hint_cmd_id u32 ?FREE_PAGE_HINT, poison_val x32 ?PAGE_POISON"),
        [VirtioDeviceId.Scsi] = FieldLayout.Parse(
            "num_queues u32, seg_max u32, max_sectors u32, cmd_per_lun u32, event_info_size u32, sense_size u32, "
            + "cdb_size u32, max_channel u16, max_target u16, max_lun u32"),
        [VirtioDeviceId.NineP] = FieldLayout.Parse("tag_len u16 ?MOUNT_TAG, tag text ?MOUNT_TAG"),
        [VirtioDeviceId.Gpu] = FieldLayout.Parse(
            "events_read x32, events_clear x32, num_scanouts u32, num_capsets u32, blob_alignment u32 ?BLOB_ALIGNMENT"),
        [VirtioDeviceId.Clock] = FieldLayout.Empty,
        [VirtioDeviceId.Input] = FieldLayout.Parse("select u8, subsel u8, size u8, - bytes5, data bytes128"),
        [VirtioDeviceId.Socket] = FieldLayout.Parse("guest_cid u64"),
        [VirtioDeviceId.Crypto] = FieldLayout.Parse(
            "status x32, max_dataqueues u32, crypto_services x32, cipher_algo_l x32, cipher_algo_h x32, hash_algo x32, "
            + "mac_algo_l x32, mac_algo_h x32, aead_algo x32, max_cipher_key_len u32, max_auth_key_len u32, "
            + "akcipher_algo x32, max_size u64"),
        [VirtioDeviceId.Iommu] = FieldLayout.Parse(
            "page_size_mask x64, input_start x64, input_end x64, domain_start u32, domain_end u32, probe_size u32, "
            + "bypass u8 ?BYPASS_CONFIG, - bytes3"),
        [VirtioDeviceId.Memory] = FieldLayout.Parse(
            "block_size u64, node_id u16 ?ACPI_PXM, - bytes6, addr x64, region_size u64, usable_region_size u64, "
            + "plugged_size u64, requested_size u64"),
        [VirtioDeviceId.Sound] = FieldLayout.Parse("jacks u32, streams u32, chmaps u32, controls u32 ?CTLS"),
        [VirtioDeviceId.FileSystem] = FieldLayout.Parse(
            "tag text36, num_request_queues u32, notify_buf_size u32 ?NOTIFICATION"),
        [VirtioDeviceId.PersistentMemory] = FieldLayout.Parse("start x64, size u64"),
        [VirtioDeviceId.Scmi] = FieldLayout.Empty,
        [VirtioDeviceId.I2cAdapter] = FieldLayout.Empty,
        [VirtioDeviceId.Can] = FieldLayout.Parse("status u16"),
        [VirtioDeviceId.Gpio] = FieldLayout.Parse("ngpio u16, - u16, gpio_names_size u32"),
        [VirtioDeviceId.DemoCounter] = FieldLayout.Empty,
        [VirtioDeviceId.DemoRegister] = FieldLayout.Empty,
        [VirtioDeviceId.Spi] = FieldLayout.Parse(
            "cs_max_number u8, cs_change_supported u8, tx_nbits_supported x8, rx_nbits_supported x8, "
            + "bits_per_word_mask x32, mode_func_supported x32, max_freq_hz u32, max_word_delay_ns u32, "
            + "max_cs_setup_ns u32, max_cs_hold_ns u32, max_cs_inactive_ns u32"),
    };

    /// <summary>The layout of a device's space; null for a type without one that is known here.</summary>
    public static FieldLayout? Of(VirtioDeviceId device) => s_layouts.GetValueOrDefault(device);
}
