-- funnel_days: one step of the funnel by SKU, channel, creative and day: what was counted (num) on what (den).
-- Days are counted back from the newest day that is known of the channel: a feed that reports late is not a SKU that
-- stopped selling. A day is as long as a period where periods are longer. A step is summed over the reports in which
-- both sides were measured.
-- Grain: sku_id, channel, creative_id, days_back.
-- Reads: reports_in_stock.
with
measured as (
    select
        sku_id,
        coalesce(channel, '') as channel,
        coalesce(creative_id, '') as creative_id,
        floor(epoch(period_start) / {day_seconds}) as day_number,
        {top} as num,
        {below} as den
    from reports_in_stock
    where superseded_at is null and {top} is not null and {below} is not null
),

newest as (
    select
        channel,
        -- A channel that fell silent a week ago is over, not late.
        greatest(max(day_number), max(max(day_number)) over () - {patience}) as last_day
    from measured
    group by channel
),

dated as (
    select
        measured.sku_id,
        measured.channel,
        measured.creative_id,
        cast(newest.last_day - measured.day_number as bigint) as days_back,
        measured.num,
        measured.den
    from measured
    inner join newest on measured.channel = newest.channel
),

summed as (
    select
        sku_id,
        channel,
        creative_id,
        days_back,
        cast(sum(num) as double) as num,
        cast(sum(den) as double) as den
    from dated
    where days_back < {reach}
    group by sku_id, channel, creative_id, days_back
)

select * from summed
