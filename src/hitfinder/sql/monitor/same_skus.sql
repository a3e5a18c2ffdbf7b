-- same_skus: what was counted in this and in the week before, of the SKUs and channels that both have; SKUs on trial
-- are left out. Each week as it was known at its own end.
-- Grain: week, is_last, style_id, category, channel.
-- Reads: look_parts (week, is_last, part, upper_end, moment), reports, catalog, scope.
with
-- Part 0 is the newest week, 1 the one before it, and so on.
placed as (
    select
        reports.*,
        catalog.category,
        catalog.style_id,
        catalog.launched_at,
        scope.test_seconds,
        cast(ceil((epoch(scope.as_of) - epoch(reports.period_start)) / 604800.0) as bigint) - 1 as part
    from reports
    inner join catalog on reports.sku_id = catalog.sku_id
    cross join scope
),

seen as (
    select
        look_parts.week,
        look_parts.is_last,
        placed.category,
        placed.style_id,
        coalesce(placed.channel, '(none)') as channel,
        placed.sku_id,
        placed.impressions,
        placed.clicks,
        placed.favorites,
        placed.carts,
        placed.orders,
        placed.revenue
    from placed
    inner join look_parts on placed.part = look_parts.part
    where
        placed.known_at <= look_parts.upper_end
        and (placed.superseded_at is null or placed.superseded_at > look_parts.upper_end)
        and epoch(placed.launched_at) + placed.test_seconds <= epoch(look_parts.moment) - 2 * 604800
),

in_both as (
    select
        week as the_week,
        sku_id as the_sku,
        channel as the_channel
    from seen
    group by week, sku_id, channel
    having min(is_last) < max(is_last)
)

select
    week,
    is_last,
    style_id,
    category,
    channel,
    count(*) as n_rows,
    {sums}
from seen
inner join in_both
    on seen.week = in_both.the_week and seen.sku_id = in_both.the_sku and seen.channel = in_both.the_channel
group by week, is_last, style_id, category, channel
order by week, is_last, style_id, category, channel
