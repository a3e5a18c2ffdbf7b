-- reports: every signal that was known at the call's moment, with the moment from which a newer report replaced it.
-- Grain: sku_id, period_start, channel, creative_id, known_at.
-- Reads: signals, scope.
with
known as (
    select signals.*
    from signals
    cross join scope
    where signals.known_at <= scope.as_of and signals.period_start < scope.as_of
),

-- Few periods are reported again: only of these is it asked when.
reported_again as (
    select
        sku_id,
        period_start,
        channel,
        creative_id
    from known
    group by sku_id, period_start, channel, creative_id
    having count(*) > 1
),

replaced as (
    select
        known.sku_id,
        known.period_start,
        known.channel,
        known.creative_id,
        known.known_at,
        lead(known.known_at) over (
            partition by known.sku_id, known.period_start, known.channel, known.creative_id
            order by known.known_at asc nulls last
        ) as superseded_at
    from known
    inner join reported_again
        on
            known.sku_id = reported_again.sku_id
            and known.period_start = reported_again.period_start
            and known.channel is not distinct from reported_again.channel
            and known.creative_id is not distinct from reported_again.creative_id
),

superseded as (
    select
        known.*,
        replaced.superseded_at
    from known
    left join replaced
        on
            known.sku_id = replaced.sku_id
            and known.period_start = replaced.period_start
            and known.channel is not distinct from replaced.channel
            and known.creative_id is not distinct from replaced.creative_id
            and known.known_at = replaced.known_at
)

select * from superseded
