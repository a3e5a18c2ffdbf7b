-- funnel_cells: one step of the funnel by SKU, channel, creative and week back: what was counted, on how much of what
-- it is counted on had come due. A click of Monday is due in parts: so much on Monday, so much on the days after.
-- Grain: sku_id, channel, creative_id, week.
-- Reads: funnel_days, waits (days, share: how much comes due so many days later), catalog.
with
counted as (
    select
        sku_id,
        channel,
        creative_id,
        days_back,
        cast(num as decimal(38, 9)) as num,
        cast(0 as decimal(38, 9)) as den
    from funnel_days
    union all
    select
        funnel_days.sku_id,
        funnel_days.channel,
        funnel_days.creative_id,
        funnel_days.days_back - waits.days as days_back,
        cast(0 as decimal(38, 9)) as num,
        cast(funnel_days.den * waits.share as decimal(38, 9)) as den
    from funnel_days
    cross join waits
    where funnel_days.den > 0 and funnel_days.days_back >= waits.days
),

summed as (
    select
        counted.sku_id,
        catalog.category,
        counted.channel,
        counted.creative_id,
        cast(floor(counted.days_back / {days_per_week}) as bigint) as week,
        cast(sum(counted.num) as double) as num,
        cast(sum(counted.den) as double) as den
    from counted
    inner join catalog on counted.sku_id = catalog.sku_id
    where counted.days_back < {history}
    group by
        counted.sku_id,
        catalog.category,
        counted.channel,
        counted.creative_id,
        cast(floor(counted.days_back / {days_per_week}) as bigint)
)

select * from summed
where num > 0 or den > 0
