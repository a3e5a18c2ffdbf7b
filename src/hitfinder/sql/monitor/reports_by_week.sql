-- reports_by_week: what came of each week, as known at its end, and of the week before it: how late, how often revised.
-- Grain: week, channel.
-- Reads: look_parts (week, is_last, part, upper_end, moment), reports, scope.
with
placed as (
    select
        reports.*,
        (epoch(reports.known_at) - epoch(reports.period_start) - scope.period_seconds) / 3600.0 as delay,
        cast(ceil((epoch(scope.as_of) - epoch(reports.period_start)) / 604800.0) as bigint) - 1 as part
    from reports
    cross join scope
),

came as (
    select
        placed.*,
        look_parts.week,
        look_parts.is_last,
        coalesce(placed.channel, '(none)') as channel_name,
        placed.superseded_at is not null and placed.superseded_at <= look_parts.moment as is_revised
    from placed
    inner join look_parts on placed.part = look_parts.part
    where placed.known_at <= look_parts.moment
)

select
    week,
    channel_name as channel,
    count(case when is_last = 0 then 1 end) as n_rows,
    count(distinct case when is_last = 0 then period_start end) as n_periods,
    count(distinct case when is_last = 0 then sku_id end) as n_skus,
    count(case when is_last = 1 then 1 end) as n_before,
    count(case when is_last = 1 and is_revised then 1 end) as n_revised,
    count(case when is_last = 1 and delay > 24 then 1 end) as n_day_late,
    count(case when is_last = 1 and delay > 48 then 1 end) as n_two_days_late,
    sum(case when is_last = 1 then delay end) as delay_sum,
    count(case when is_last = 0 then impressions end) as impressions,
    count(case when is_last = 0 then visitors end) as visitors,
    count(case when is_last = 0 then clicks end) as clicks,
    count(case when is_last = 0 then favorites end) as favorites,
    count(case when is_last = 0 then carts end) as carts,
    count(case when is_last = 0 then orders end) as orders,
    count(case when is_last = 0 then units end) as units,
    count(case when is_last = 0 then revenue end) as revenue,
    count(case when is_last = 0 then refunds end) as refunds,
    count(case when is_last = 0 then spend end) as spend
from came
group by week, channel_name
order by week, channel
