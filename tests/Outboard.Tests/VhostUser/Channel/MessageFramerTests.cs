// The framer never loses its place, however the stream is cut, and never keeps an attachment that nobody takes.
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser.Channel;

public sealed class MessageFramerTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Any_split_of_a_stream_gives_the_same_messages(int seed)
    {
        Random random = new(seed);
        for (int round = 0; round < 300; round++)
        {
            Sent[] sent = [.. Enumerable.Range(0, random.Next(1, 8)).Select(_ => Sent.Random(random))];
            int largest = 1 << random.Next(0, 13);
            Check(sent, _ => random.Next(1, largest + 1));
        }
    }

    [Fact]
    public void Byte_by_byte_gives_the_same_messages()
    {
        Random random = new(4);
        Check([.. Enumerable.Range(0, 20).Select(_ => Sent.Random(random))], _ => 1);
    }

    [Fact]
    public void Whatever_fits_at_once_gives_the_same_messages()
    {
        Random random = new(5);
        Check([.. Enumerable.Range(0, 20).Select(_ => Sent.Random(random))], wanted => wanted);
    }

    [Fact]
    public void Never_wants_a_byte_of_the_next_message()
    {
        MessageFramer framer = new();
        Assert.Equal(12, framer.Next.Length);
        Assert.False(framer.IsInMessage);
        Assert.Null(Feed(framer, WirePeer.Frame(1, 1, [], size: 40)));
        Assert.Equal(40, framer.Next.Length);
        Assert.True(framer.IsInMessage);
        Assert.Null(Feed(framer, new byte[39]));
        Assert.Equal(1, framer.Next.Length);
        using VhostUserMessage? message = Feed(framer, new byte[1]);
        Assert.NotNull(message);
        Assert.Equal(12, framer.Next.Length);
        Assert.False(framer.IsInMessage);
    }

    [Theory]
    [InlineData(5)]
    [InlineData(12)]
    [InlineData(15)]
    public void Attachments_in_the_middle_break_the_stream(int before)
    {
        byte[] bytes = WirePeer.Frame(1, 1, new byte[8]);
        MessageFramer framer = new();
        FakeAttachment first = new();
        FakeAttachment late = new();
        Assert.Null(Feed(framer, bytes[..Math.Min(before, 12)], first));
        Assert.Null(Feed(framer, bytes[Math.Min(before, 12)..before]));
        ProtocolException error = Assert.Throws<ProtocolException>(() => Feed(framer, [bytes[before]], late));
        Assert.True(error.IsFatal);
        framer.Abandon();
        Assert.Equal(1, first.Disposals);
        Assert.Equal(1, late.Disposals);
    }

    [Theory]
    [InlineData(4097U)]
    [InlineData(0x7FFF_FFFFU)]
    [InlineData(0x8000_0000U)]
    [InlineData(uint.MaxValue)]
    public void Payload_above_the_limit_breaks_the_stream_before_it_is_read(uint size)
    {
        MessageFramer framer = new();
        ProtocolException error = Assert.Throws<ProtocolException>(() => Feed(framer, WirePeer.Frame(7, 1, [], size)));
        Assert.True(error.IsFatal);
        Assert.Equal("size", error.Field);
    }

    [Fact]
    public void Payload_at_the_limit_is_taken()
    {
        MessageFramer framer = new();
        Assert.Null(Feed(framer, WirePeer.Frame(7, 1, [], size: 4096)));
        using VhostUserMessage? message = Feed(framer, new byte[4096]);
        Assert.Equal(4096, message!.Payload.Length);
    }

    [Theory]
    [InlineData(0U)]
    [InlineData(2U)]
    [InlineData(3U)]
    [InlineData(0xFFFF_FFFCU)]
    public void Another_version_breaks_the_stream(uint flags)
    {
        MessageFramer framer = new();
        ProtocolException error = Assert.Throws<ProtocolException>(() => Feed(framer, WirePeer.Frame(7, flags, [])));
        Assert.True(error.IsFatal);
        Assert.Equal("flags", error.Field);
    }

    [Fact]
    public void Garbage_throws_nothing_but_protocol_exceptions_and_is_disposed()
    {
        Random random = new(6);
        for (int round = 0; round < 5000; round++)
        {
            MessageFramer framer = new();
            List<FakeAttachment> attachments = [];
            try
            {
                for (int i = 0; i < 50; i++)
                {
                    byte[] bytes = new byte[random.Next(1, framer.Next.Length + 1)];
                    random.NextBytes(bytes);
                    if (random.Next(4) == 0)
                    {
                        attachments.Add(new FakeAttachment());
                        Feed(framer, bytes, attachments[^1])?.Dispose();
                    }
                    else
                    {
                        Feed(framer, bytes)?.Dispose();
                    }
                }
            }
            catch (ProtocolException error)
            {
                Assert.True(error.IsFatal);
            }

            framer.Abandon();
            Assert.All(attachments, attachment => Assert.Equal(1, attachment.Disposals));
        }
    }

    [Fact]
    public void Message_that_is_not_complete_is_abandoned_with_its_attachments()
    {
        MessageFramer framer = new();
        FakeAttachment attachment = new();
        Feed(framer, [1, 0, 0], attachment);
        framer.Abandon();
        framer.Abandon();
        Assert.Equal(1, attachment.Disposals);
    }

    private static VhostUserMessage? Feed(MessageFramer framer, byte[] bytes, params Attachment[] attachments)
    {
        bytes.CopyTo(framer.Next);
        return framer.Advance(bytes.Length, attachments);
    }

    /// <summary>Feeds the messages cut as told; attachments come with the first piece, as on sockets.</summary>
    private static void Check(Sent[] sent, Func<int, int> cut)
    {
        MessageFramer framer = new();
        foreach (Sent expected in sent)
        {
            byte[] bytes = WirePeer.Frame(expected.Request, 1, expected.Payload);
            FakeAttachment[] attachments =
                [.. Enumerable.Range(0, expected.Attachments).Select(_ => new FakeAttachment())];
            VhostUserMessage? message = null;
            for (int fed = 0; fed < bytes.Length;)
            {
                Assert.Null(message);
                int part = Math.Clamp(cut(framer.Next.Length), 1, framer.Next.Length);
                message = Feed(framer, bytes[fed..(fed + part)], fed == 0 ? attachments : []);
                fed += part;
            }

            Assert.NotNull(message);
            Assert.Equal(expected.Request, message.Request);
            Assert.Equal(expected.Payload, message.Payload.ToArray());
            Assert.Equal(attachments, message.Attachments);
            message.Dispose();
            Assert.All(attachments, attachment => Assert.Equal(1, attachment.Disposals));
        }

        Assert.False(framer.IsInMessage);
    }

    private sealed record Sent(uint Request, byte[] Payload, int Attachments)
    {
        public static Sent Random(Random random)
        {
            byte[] payload = new byte[random.Next(3) == 0 ? 0 : random.Next(0, 4097)];
            random.NextBytes(payload);
            return new Sent((uint)random.Next(), payload, random.Next(3) == 0 ? random.Next(1, 9) : 0);
        }
    }

    private sealed class FakeAttachment : Attachment
    {
        public int Disposals { get; private set; }

        public override SharedMemory ToSharedMemory() => throw new NotSupportedException();

        public override Notifier ToNotifier() => throw new NotSupportedException();

        public override VhostUserChannel ToChannel() => throw new NotSupportedException();

        public override StateStream ToStateStream() => throw new NotSupportedException();

        public override Outboard.Virtio.DisplayConnection ToDisplay() => throw new NotSupportedException();

        public override void Dispose() => Disposals++;
    }
}
