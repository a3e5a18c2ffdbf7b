-- One row per SKU x period x channel. A kind that the format can't tell of is NULL; one that it can is at least 0.
-- Reads `judged_events` and `order_credits` (as_logged.sql or attribution.sql).
with kept as (
    select * from judged_events
    where rule is null and kind <> 'ignored'
),

-- A property's day may end after the day in UTC: nothing of it was known before its last event.
period_ends as (
    select
        period_start,
        greatest(period_start + {period}, max(happened_at)) as known_at
    from kept
    group by period_start
),

audience as (
    select
        sku_id,
        period_start,
        channel,
        count(*) filter (where kind = 'impressions') as impressions,
        count(*) filter (where kind = '{click_kind}') as clicks,
        count(*) filter (where kind = 'favorites') as favorites,
        count(*) filter (where kind = 'carts') as carts,
        -- Who came or bought. Where events name nobody, visitors were not measured.
        case
            when count(*) filter (where kind not in ('impressions', 'refunds')) = 0 then 0
            when count(*) filter (where kind not in ('impressions', 'refunds') and person_known) = 0 then null
            else count(distinct person) filter (where kind not in ('impressions', 'refunds') and person_known)
        end as visitors
    from kept
    group by sku_id, period_start, channel
),

-- A channel may be credited with an order in a period in which nobody came through it.
grain as (
    select sku_id, period_start, channel from audience
    union
    select sku_id, period_start, channel from order_credits
),

counted as (
    select
        grain.sku_id,
        grain.period_start,
        grain.channel,
        coalesce(audience.impressions, 0) as impressions,
        coalesce(audience.clicks, 0) as clicks,
        coalesce(audience.favorites, 0) as favorites,
        coalesce(audience.carts, 0) as carts,
        case when audience.sku_id is null then 0 else audience.visitors end as visitors,
        coalesce(order_credits.orders, 0) as orders,
        coalesce(order_credits.units, 0) as units,
        coalesce(order_credits.revenue, 0) as revenue,
        coalesce(order_credits.refunds, 0) as refunds
    from grain
    left join audience
        on audience.sku_id = grain.sku_id
        and audience.period_start = grain.period_start
        and audience.channel is not distinct from grain.channel
    left join order_credits
        on order_credits.sku_id = grain.sku_id
        and order_credits.period_start = grain.period_start
        and order_credits.channel is not distinct from grain.channel
),

measured as (
    select
        counted.sku_id,
        counted.period_start,
        counted.channel,
        period_ends.known_at,
        {measured}
    from counted
    join period_ends on period_ends.period_start = counted.period_start
)

select * from measured
