// A running queue behind an IOMMU: translations come and are withdrawn while it runs.
//
// A withdrawal is done when nothing in flight uses the range. Until then the queue takes nothing new: what is in flight
// comes to its end without the front-end's help, for whatever it needed was translated when it was taken. A chain that
// waits for a translation is not in flight and holds nothing up.
using Outboard.Memory;

namespace Outboard.Virtio;

public sealed partial class RunningQueue
{
    private List<(ulong Start, ulong Last, TaskCompletionSource<bool> Done)>? _withdrawing;

    /// <summary>Hands over a translation that is in the table. From the thread that writes the table.</summary>
    public void Translate(IommuEntry entry)
    {
        if (_queue.WaitsForTranslation)
        {
            PostToQueue(() => _queue.OnTranslated(entry));
        }
    }

    /// <summary>Tells that a page has no translation that allows what was asked for. From any thread.</summary>
    /// <param name="page">The page, and the access that was asked for.</param>
    public void RefuseTranslation(IovaMiss page) => PostToQueue(() => _queue.OnTranslationRefused(page));

    /// <summary>Withdraws a range, which is no longer in the table.</summary>
    /// <param name="start">First I/O virtual address.</param>
    /// <param name="last">Last one.</param>
    /// <returns>Completes when nothing in flight uses the range any more.</returns>
    public async Task WithdrawAsync(ulong start, ulong last)
    {
        TaskCompletionSource<bool> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await _worker.InvokeAsync(() =>
        {
            if (_isStopped)
            {
                done.SetResult(true);
                return;
            }

            bool isFirst = _withdrawing is null;
            (_withdrawing ??= []).Add((start, last, done));
            TendTranslations();
            if (isFirst && _withdrawing is not null)
            {
                Quiesce();
            }

            _worker.Activate(this);
        }).ConfigureAwait(false);
        await _worker.WhileAlive(done.Task).ConfigureAwait(false);
    }

    /// <summary>Ends the withdrawals that nothing holds up any more, and opens a ring that was closed by one.</summary>
    private void TendTranslations()
    {
        if (_withdrawing is not null)
        {
            for (int i = _withdrawing.Count - 1; i >= 0; i--)
            {
                (ulong start, ulong last, TaskCompletionSource<bool> done) = _withdrawing[i];
                Flush();
                if (!_queue.IsUsing(start, last) || (_handler.HasFailed && !_worker.HasFileOperations))
                {
                    _queue.Withdraw(start, last);
                    _withdrawing.RemoveAt(i);
                    done.SetResult(true);
                }
            }

            _withdrawing = _withdrawing.Count == 0 ? null : _withdrawing;
        }
        else if (CanServe)
        {
            _queue.Reopen();
        }

        ReportFault();
    }

    private void EndWithdrawals()
    {
        _withdrawing?.ForEach(static withdrawal => withdrawal.Done.SetResult(true));
        _withdrawing = null;
    }

    private void PostToQueue(Action action) => _worker.Post(() =>
    {
        if (!_isStopped)
        {
            action();
            ReportFault();
            _worker.Activate(this);
        }
    });
}
